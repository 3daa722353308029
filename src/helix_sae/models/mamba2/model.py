"""A mended Mamba2-mRNA: blocks of Mamba-2 mixers, one token a nucleotide, no codon markers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from helix_sae.errors import ModelError
from helix_sae.models.chain import ChainModel
from helix_sae.models.checkpoints import (
    CONFIG_NAME,
    check_complete,
    check_declared,
    configuration,
    fingerprint_of_weights,
    weight_files,
)
from helix_sae.models.mamba2.mending import mend
from helix_sae.models.mamba2.mixer import MixerState, mixer_state
from helix_sae.models.upstream import import_helical, undisturbed_logging
from helix_sae.mrna.tokens import VOCABULARY

HUB_ID = "helical-ai/Mamba2-mRNA"
"""The released model."""

MODEL_MAX_LENGTH = 8192
"""Longest input of the released model, in tokens."""


class Mamba2Model(ChainModel):
    """A mended ``Mamba2Model`` of transformers, as helical's ``Mamba2mRNA`` loads it.

    Parameters
    ----------
    module : nn.Module
        Mended.
    fingerprint : str, optional
        Identifies the weights.
    """

    markers = ("none",)

    def __init__(self, module: nn.Module, *, fingerprint: str = "unsaved") -> None:
        super().__init__(module, fingerprint=fingerprint)

    def forward(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time hidden"]:
        """Last hidden states, after the final norm."""
        return self.network(input_ids=ids, use_cache=False, return_dict=True).last_hidden_state

    def block(
        self, k: int, hidden: Float[Tensor, "batch time hidden"], state: Any = None
    ) -> Float[Tensor, "batch time hidden"]:
        """The residual stream after block ``k``."""
        return self.network.layers[k](hidden, cache_params=state)

    def block_state(self, k: int, residual: Float[Tensor, "batch start hidden"]) -> MixerState:
        """The state of a mixer's scan and convolution."""
        return mixer_state(self.network.layers[k], residual)

    @classmethod
    def files(cls, directory: Path) -> list[Path]:
        """Configuration and weights."""
        configuration(directory)
        return [directory / CONFIG_NAME, *weight_files(directory)]

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read a checkpoint through helical, and mend it."""
        check_declared(directory)
        helical = import_helical("mamba2_mrna")
        options = helical.Mamba2mRNAConfig(device="cpu")
        options.config["model_name"] = str(directory)
        try:
            with undisturbed_logging():
                module: Any = helical.Mamba2mRNA(configurer=options).model.float()
            check_complete(directory, list(module.state_dict()))
        except ModelError:
            raise
        except Exception as error:  # upstream, transformers and safetensors raise a dozen kinds
            raise ModelError(
                f"The checkpoint in {directory} cannot be loaded ({type(error).__name__}: {error}); fetch it"
                " again, or write it again with save_pretrained."
            ) from error
        if len(module.embeddings.weight) <= VOCABULARY["N"]:
            raise ModelError(
                f"The checkpoint in {directory} has {len(module.embeddings.weight)} tokens, fewer than"
                " helical's tokenizer; it is no Mamba2-mRNA."
            )
        mend(module)
        return cls(module)

    @classmethod
    def adopt(cls, made: object) -> Self | None:
        """Mend, in place, a helical ``Mamba2mRNA`` that the caller has made."""
        module: Any = getattr(made, "model", None)
        if "Mamba2Model" not in {parent.__name__ for parent in type(module).__mro__}:
            return None
        mend(module)
        return cls(module.eval(), fingerprint=fingerprint_of_weights(module))

    def save(self, directory: Path) -> None:
        """Write weights, configuration and tokenizer, so that helical loads the directory."""
        directory.mkdir(parents=True, exist_ok=True)
        tokenizer_class = import_helical("mamba2_mrna.mamba2_mrna_tokenizer").CharTokenizer
        with undisturbed_logging():
            self.network.save_pretrained(directory, safe_serialization=True)
            tokenizer_class(model_max_length=MODEL_MAX_LENGTH).save_pretrained(directory)

    def untrained(self, seed: int) -> Mamba2Model:
        """The same architecture with fresh weights."""
        with torch.random.fork_rng(devices=[]), undisturbed_logging():
            torch.manual_seed(seed)
            module = type(self.module)(copy.deepcopy(self.network.config))  # pyright: ignore[reportCallIssue]
        mend(module)
        twin = Mamba2Model(module, fingerprint=f"untrained {seed}")
        twin.place(str(self.device), self.dtype)
        return twin


def build_model(seed: int, **sizes: Any) -> Mamba2Model:
    """A mended model with random weights.

    Parameters
    ----------
    seed : int
        Seeds the initialisation; the process's random state is left as it was.
    **sizes
        Fields of transformers' ``Mamba2Config``: ``hidden_size``, ``num_heads``, ``head_dim``,
        ``num_hidden_layers`` ...
    """
    config = import_helical("mamba2_mrna.model").Mamba2Config(
        **{"vocab_size": 13, "pad_token_id": 4, "use_cache": False, **sizes}
    )
    with torch.random.fork_rng(devices=[]), undisturbed_logging():
        torch.manual_seed(seed)
        module = import_helical("mamba2_mrna.model").Mamba2Model(config)
    mend(module)
    model = Mamba2Model(module)
    model.place("cpu", torch.float32)
    return model
