"""Fresh networks of helical's classes, and their checkpoints in the Hugging Face layout that helical reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from helix_sae.models.helix.mending import mend
from helix_sae.models.upstream import import_helical, undisturbed_logging

LAYER_STRING = "M+M+M+M*+"
"""Blocks of the released model: Mamba-2 mixers (M), feed-forward (+), attention with feed-forward (*)."""

MODEL_MAX_LENGTH = 12288
"""Longest input of the released model, in tokens."""


class Architecture(BaseModel):
    """Sizes of a Helix-mRNA network.

    The defaults are those of ``helix_mini``; :func:`released_architecture` has the released model's.

    Attributes
    ----------
    hidden_size : int
        Width of the residual stream.
    head_dim, state_size, n_groups : int
        Of the Mamba-2 mixers: channels a head, states a channel, groups of heads that share ``B`` and ``C``.
    expand : int
        Inner width of a mixer, in multiples of ``hidden_size``.
    attention_heads, key_value_heads : int
        Of the attention layer.
    layers : str
        One letter a layer: ``M`` mixer, ``+`` feed-forward, ``*`` attention.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden_size: int = Field(96, ge=8)
    head_dim: int = Field(32, ge=4)
    state_size: int = Field(32, ge=1)
    n_groups: int = Field(1, ge=1)
    expand: int = Field(2, ge=1)
    attention_heads: int = Field(4, ge=1)
    key_value_heads: int = Field(2, ge=1)
    layers: str = Field(LAYER_STRING, pattern=r"^[M+*]+$")

    @model_validator(mode="after")
    def _sizes_divide(self) -> Architecture:
        if (self.expand * self.hidden_size) % self.head_dim or self.hidden_size % self.attention_heads:
            raise ValueError(
                "expand * hidden_size must divide by head_dim, and hidden_size by attention_heads"
            )
        if self.num_heads % self.n_groups or self.attention_heads % self.key_value_heads:
            raise ValueError("heads must divide by n_groups, and attention_heads by key_value_heads")
        return self

    @property
    def num_heads(self) -> int:
        """Mamba-2 heads: the inner width, ``expand * hidden_size``, over ``head_dim``."""
        return self.expand * self.hidden_size // self.head_dim


def released_architecture() -> Architecture:
    """The size of ``helical-ai/Helix-mRNA``: 9 layers, hidden size 256, 5.2 million parameters.

    The released model's own configuration comes with its weights; this stands in for it where only its size
    matters.
    """
    return Architecture(  # pyright: ignore[reportCallIssue]
        hidden_size=256, head_dim=64, state_size=128, expand=1, attention_heads=8, key_value_heads=4
    )


def build_network(architecture: Architecture, seed: int) -> nn.Module:
    """A mended network with random weights.

    Parameters
    ----------
    architecture : Architecture
    seed : int
        Seeds the initialisation; the process's random state is left as it was.
    """
    config = _upstream_config(architecture)
    with torch.random.fork_rng(devices=[]), undisturbed_logging():
        torch.manual_seed(seed)
        network: nn.Module = import_helical("helix_mrna.modeling_helix_mrna").HelixmRNAPretrainedModel(config)
    mend(network)
    return network.eval()


def save_network(network: nn.Module, directory: Path) -> None:
    """Write weights, configuration and tokenizer so that helical's ``HelixmRNA`` loads the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer_class = import_helical("helix_mrna.helix_mrna_tokenizer").CharTokenizer
    with undisturbed_logging():
        network.save_pretrained(directory, safe_serialization=True)  # type: ignore[operator]
        tokenizer_class(model_max_length=MODEL_MAX_LENGTH).save_pretrained(directory)


def _upstream_config(architecture: Architecture) -> Any:
    config_class = import_helical("helix_mrna.helix_mrna_pretrained_config").HelixmRNAPretrainedConfig
    return config_class(
        vocab_size=14,
        hidden_size=architecture.hidden_size,
        num_heads=architecture.num_heads,
        head_dim=architecture.head_dim,
        state_size=architecture.state_size,
        n_groups=architecture.n_groups,
        expand=architecture.expand,
        num_attention_heads=architecture.attention_heads,
        num_key_value_heads=architecture.key_value_heads,
        num_hidden_layers=len(architecture.layers),
        layers_block_type=architecture.layers,
        use_cache=False,
        attn_implementation="sdpa",
    )
