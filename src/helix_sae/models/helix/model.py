"""A mended Helix-mRNA with its read-outs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from helix_sae.models.chain import ChainModel
from helix_sae.models.checkpoints import fingerprint_of_weights
from helix_sae.models.contract import Model, StillTokens
from helix_sae.models.helix.architecture import save_network
from helix_sae.models.helix.checkpoint import files_that_count, read_network
from helix_sae.models.helix.fast.forward import apply_layer, attend, block_state, feed_on
from helix_sae.models.helix.finetuned import FineTunedModel
from helix_sae.models.helix.heads import Heads, load_fine_tuned_head, load_heads, save_heads
from helix_sae.models.helix.mending import compile_parts, mend
from helix_sae.models.helix.untrained import untrained_network
from helix_sae.models.suffix import BlockState


class HelixModel(ChainModel):
    """A mended network: blocks of Mamba-2 mixers, of feed-forwards, and of attention with a feed-forward.

    Parameters
    ----------
    module : nn.Module
        A mended ``HelixmRNAPretrainedModel``.
    fingerprint : str
        Identifies the weights.
    heads : Heads, optional
        The read-outs that were pretrained with it.
    """

    markers = ("cds", "none")
    parts = ("mixer", "self_attn", "feed_forward")

    def __init__(self, module: nn.Module, *, fingerprint: str, heads: Heads | None) -> None:
        super().__init__(module, fingerprint=fingerprint)
        self.heads = heads
        self.head = None if heads is None else heads.as_head()
        self._is_fine_tuned = False

    def forward(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time hidden"]:
        """Last hidden states, after the final norm."""
        return self.network(input_ids=ids, use_cache=False, return_dict=True).last_hidden_state

    def block(
        self, k: int, hidden: Float[Tensor, "batch time hidden"], state: Any = None
    ) -> Float[Tensor, "batch time hidden"]:
        """The residual stream after block ``k``."""
        return apply_layer(self.network.layers[k], hidden, state=state)[0]

    def block_state(self, k: int, residual: Float[Tensor, "batch start hidden"]) -> BlockState | None:
        """The state of a mixer's scan and convolution, or keys and values; None for a feed-forward."""
        return block_state(self.network.layers[k], residual)

    def leave_block(
        self,
        k: int,
        part: str,
        residual: Float[Tensor, "batch time hidden"],
        value: Float[Tensor, "batch time hidden"],
        state: Callable[[], Any],
    ) -> Float[Tensor, "batch time hidden"]:
        """An attention block has two parts, one behind the other."""
        layer = self.network.layers[k]
        if not hasattr(layer, "self_attn"):
            return residual + value
        if part == "self_attn":
            return feed_on(layer, residual + value)
        return attend(layer, residual, state()) + value

    def still_block(
        self,
        k: int,
        hidden: Float[Tensor, "batch time hidden"],
        state: Any,
        still: StillTokens,
    ) -> Float[Tensor, "batch time hidden"]:
        """The feed-forward of an attention block mixes no tokens either."""
        layer = self.network.layers[k]
        if hasattr(layer, "self_attn"):
            return still.through(k, partial(feed_on, layer), attend(layer, hidden, state))
        return super().still_block(k, hidden, state, still)

    @classmethod
    def adopt(cls, made: object) -> Self | None:
        """Mend, in place, a helical ``HelixmRNA`` or ``HelixmRNAFineTuningModel`` that the caller has made."""
        module: Any = getattr(made, "model", None)
        if "HelixmRNAPretrainedModel" not in {parent.__name__ for parent in type(module).__mro__}:
            return None
        mend(module)
        return cls(module.eval(), fingerprint=fingerprint_of_weights(module), heads=None)

    @classmethod
    def files(cls, directory: Path) -> list[Path]:
        """Configuration, weights and heads."""
        return files_that_count(directory)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read a checkpoint through helical, and mend it."""
        model = cls(read_network(directory), fingerprint="unsaved", heads=load_heads(directory))
        if (tuned := load_fine_tuned_head(directory)) is not None:
            model.head, model._is_fine_tuned = tuned, True
        return model

    def save(self, directory: Path) -> None:
        """Write weights, configuration, tokenizer and pretrained heads, so that helical loads the directory."""
        save_network(self.module, directory)
        if self.heads is not None:
            save_heads(self.heads, directory)

    def place(self, device: str, dtype: torch.dtype) -> None:
        """Move network and heads; the heads stay in float32."""
        super().place(device, dtype)
        if dtype == torch.float64:
            for layer in self.network.layers:
                layer.residual_in_fp32 = (
                    False  # which would round the residual stream to float32 at every mixer
                )
        if self.heads is not None:
            self.heads.to(device=device)

    def compile(self) -> None:
        """Compile what mixers and feed-forwards compute."""
        compile_parts(self.module)

    def untrained(self, seed: int) -> HelixModel:
        """The same architecture with fresh weights, without heads."""
        twin = HelixModel(untrained_network(self.module, seed), fingerprint=f"untrained {seed}", heads=None)
        twin.place(str(self.device), self.dtype)
        return twin

    def as_read_by_head(self) -> Model:
        """A fine-tuned head reads more than the mean of the last states."""
        return FineTunedModel(self) if self._is_fine_tuned else self

    def next_token_logits(
        self, hidden: Float[Tensor, "*batch hidden"]
    ) -> Float[Tensor, "*batch vocabulary"] | None:
        """Scores of the next token; None without a pretrained head."""
        return None if self.heads is None else self.heads.logits(hidden)
