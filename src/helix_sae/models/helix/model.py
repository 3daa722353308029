"""A mended Helix-mRNA, and the short ways that a chain of blocks offers: capture, resume, suffix passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from helix_sae.models.checkpoints import fingerprint_of_weights
from helix_sae.models.contract import Edit, Model, StillTokens, record
from helix_sae.models.helix.architecture import save_network
from helix_sae.models.helix.checkpoint import files_that_count, read_network
from helix_sae.models.helix.fast.forward import AttentionState, MixerState, apply_layer, attend, feed_on
from helix_sae.models.helix.fast.suffix import PrefixStates, pool_suffix, prefix_states
from helix_sae.models.helix.finetuned import FineTunedModel
from helix_sae.models.helix.heads import Heads, load_fine_tuned_head, load_heads, save_heads
from helix_sae.models.helix.mending import compile_parts, mend
from helix_sae.models.helix.untrained import untrained_network

_EMBEDDINGS = "embeddings"
_PARTS = ("mixer", "self_attn", "feed_forward")


class ResidualCache(NamedTuple):
    """What a pass left behind: enough to run on from any site.

    Attributes
    ----------
    residual : tuple of float (batch, time, hidden)
        ``residual[k]`` enters layer ``k``; the last one leaves the last layer.
    """

    residual: tuple[Float[Tensor, "batch time hidden"], ...]

    def rows(self, index: Int[Tensor, " n"]) -> ResidualCache:
        """The cache of some sequences of the batch, repeats allowed."""
        return ResidualCache(tuple(r.index_select(0, index) for r in self.residual))


class HelixModel(Model):
    """A mended network and its sites.

    ``layers.k`` is the residual stream after block ``k``, ``layers.k.mixer`` what the mixer adds to it; likewise
    ``layers.k.self_attn`` and ``layers.k.feed_forward``, and ``embeddings`` at the start.

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

    def __init__(self, module: nn.Module, *, fingerprint: str, heads: Heads | None) -> None:
        sites = _site_names(module)
        mixers = [name for name in sites if name.endswith(".mixer")]
        super().__init__(module, sites, default_sites=mixers, fingerprint=fingerprint)
        self.heads = heads
        self.head = None if heads is None else heads.as_head()
        self._is_fine_tuned = False

    @property
    def _network(self) -> Any:
        return self.module

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return int(self._network.embeddings.weight.shape[1])

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self._network.layers)

    def forward(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time hidden"]:
        """Last hidden states, after the final norm."""
        return self._network(input_ids=ids, use_cache=False, return_dict=True).last_hidden_state

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
            for layer in self._network.layers:
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

    @torch.no_grad()
    def capture(
        self, ids: Int[Tensor, "batch time"], sites: Sequence[str]
    ) -> dict[str, Float[Tensor, "batch time hidden"]]:
        """Activations at several sites, in one pass that stops after the last of them."""
        self.check_sites(sites)
        last = max((self.layer_of(site) for site in sites), default=-1)
        captured: dict[str, Tensor] = {}
        with self.edited({site: partial(record, captured, site) for site in sites}):
            hidden = self._network.embeddings(ids)
            for layer in self._network.layers[: last + 1]:
                hidden = apply_layer(layer, hidden)[0]
        return {site: captured[site] for site in sites}

    def cache(self, ids: Int[Tensor, "batch time"]) -> ResidualCache:
        """The residual stream before each layer and after the last."""
        residual = [self._network.embeddings(ids)]
        for layer in self._network.layers:
            residual.append(apply_layer(layer, residual[-1])[0])
        return ResidualCache(tuple(residual))

    def at_site(self, site: str, cache: ResidualCache) -> Float[Tensor, "batch time hidden"]:
        """The activation at a site, computed again from the cached residual stream in one block."""
        layer = self.layer_of(site)
        if layer < 0:
            return cache.residual[0]
        if site == f"layers.{layer}":
            return cache.residual[layer + 1]
        captured: dict[str, Tensor] = {}
        with self.edited({site: partial(record, captured, site)}):
            apply_layer(self._network.layers[layer], cache.residual[layer])
        return captured[site]

    def resume(
        self,
        site: str,
        value: Float[Tensor, "batch time hidden"],
        cache: ResidualCache,
        hooks: Mapping[str, Edit] | None = None,
    ) -> Float[Tensor, "batch time hidden"]:
        """Run on from a site, through the blocks behind it only."""
        index = self.layer_of(site)
        with self.edited(hooks or {}):
            hidden = self._leave_layer(site, value, cache.residual[max(index, 0)])
            for layer in self._network.layers[index + 1 :]:
                hidden = apply_layer(layer, hidden)[0]
            return self._network.norm_f(hidden)

    def prefix_states(self, cache: ResidualCache, start: int) -> PrefixStates:
        """The states that the tokens before ``start`` leave in each block."""
        return prefix_states(self._network, cache.residual, start)

    def resume_suffix(
        self,
        site: str,
        value: Float[Tensor, "n suffix hidden"],
        prefix: PrefixStates,
        hooks: Mapping[str, Edit] | None = None,
        changed: Bool[Tensor, "n suffix"] | None = None,
        still: StillTokens | None = None,
    ) -> Float[Tensor, "n suffix hidden"]:
        """Run on from a site over the tokens from ``prefix.start`` on only, each block from the state before them.

        Tokens that have not ``changed`` are as they were in the pass that the prefix is from, until a block mixes tokens.
        """
        if changed is not None and hooks:
            raise ValueError("Hooks may change any token: give either `changed` or `hooks`.")
        index = self.layer_of(site)
        with self.edited(hooks or {}):
            edited = {self.layer_of(name) for edits in self._edits for name in edits}
            residual = prefix.pick(prefix.residual[max(index, 0)])
            attends = index >= 0 and hasattr(self._network.layers[index], "self_attn")
            hidden = self._leave_layer(site, value, residual, prefix.layer(index) if attends else None)
            for k in range(index + 1, self.n_layers):
                layer, state = self._network.layers[k], prefix.layer(k)
                changed = changed if state is None else None
                if still is not None and k not in edited and not hasattr(layer, "mixer"):
                    hidden = _through_block(layer, hidden, state, partial(still.through, k))
                elif changed is None:
                    hidden = apply_layer(layer, hidden, state=state)[0]
                else:
                    moved = apply_layer(layer, hidden[changed].unsqueeze(0))[0].squeeze(0)
                    hidden = prefix.pick(prefix.residual[k + 1]).masked_scatter(changed.unsqueeze(-1), moved)
            return self._network.norm_f(hidden)

    def pool_suffix(
        self,
        hidden: Float[Tensor, "n suffix hidden"],
        prefix: PrefixStates,
        is_nucleotide: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, "n hidden"]:
        """:meth:`pool` of whole sequences from a resumed suffix."""
        return pool_suffix(hidden, prefix, is_nucleotide)

    def _leave_layer(
        self, site: str, value: Tensor, residual: Tensor, state: MixerState | AttentionState | None = None
    ) -> Tensor:
        """The residual stream after the site's block, with ``value`` at the site.

        ``residual`` and ``state`` are what enters the block.
        """
        index = self.layer_of(site)
        if index < 0 or site == f"layers.{index}":
            return value
        layer = self._network.layers[index]
        if not hasattr(layer, "self_attn"):
            hidden = residual + value
        elif site.endswith(".self_attn"):
            hidden = feed_on(layer, residual + value)
        else:
            hidden = attend(layer, residual, state) + value
        # The block itself was not called, so edits of what leaves it are made here.
        for edits in self._edits:
            if f"layers.{index}" in edits:
                hidden = edits[f"layers.{index}"](hidden)
        return hidden


def _through_block(
    layer: Any,
    hidden: Tensor,
    state: MixerState | AttentionState | None,
    through: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor],
) -> Tensor:
    """A block without a mixer, what works token by token in it given to ``through``."""
    if hasattr(layer, "self_attn"):
        return through(partial(feed_on, layer), attend(layer, hidden, state))
    return through(lambda x: apply_layer(layer, x)[0], hidden)


def _site_names(module: nn.Module) -> tuple[str, ...]:
    names = [_EMBEDDINGS]
    layers: Any = module.get_submodule("layers")
    for k, layer in enumerate(layers):
        names += [f"layers.{k}.{part}" for part in _PARTS if hasattr(layer, part)]
        names.append(f"layers.{k}")
    return tuple(names)
