"""A mended Helix-mRNA, with its sites: capture, resume, edit, embed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from helix_sae.errors import UnknownSiteError
from helix_sae.models.batching import DEFAULT_TOKEN_BUDGET, length_batches
from helix_sae.models.helix.fast.forward import AttentionState, MixerState, apply_layer, attend, feed_on
from helix_sae.models.helix.fast.suffix import PrefixStates, StillTokens, pool_suffix, prefix_states
from helix_sae.models.helix.heads import Heads
from helix_sae.mrna.tokens import TokenizedSequence, pad_batch

Edit = Callable[[Tensor], Tensor]
"""Takes the activation at a site, (batch, time, hidden), and returns its replacement."""

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


class HelixModel:
    """A mended network and its sites.

    A *site* is a module path whose output is read or edited: ``layers.k`` is the residual stream after block ``k``,
    ``layers.k.mixer`` what the mixer adds to it; likewise ``layers.k.self_attn`` and ``layers.k.feed_forward``, and
    ``embeddings`` at the start.

    Parameters
    ----------
    module : nn.Module
        A mended ``HelixmRNAPretrainedModel``.
    fingerprint : str
        Identifies the weights.
    heads : Heads, optional
        The read-outs kept beside the checkpoint.
    """

    def __init__(self, module: nn.Module, *, fingerprint: str, heads: Heads | None) -> None:
        self.module = module
        self.fingerprint = fingerprint
        self.heads = heads
        self.site_names = _site_names(module)
        self.default_sites = tuple(name for name in self.site_names if name.endswith(".mixer"))
        self._edits: list[Mapping[str, Edit]] = []

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return int(self._network.embeddings.weight.shape[1])

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self._network.layers)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._network.embeddings.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights and the activations."""
        return self._network.embeddings.weight.dtype

    @property
    def _network(self) -> Any:
        return self.module

    def check_sites(self, sites: Sequence[str]) -> None:
        """Make sure that every site exists.

        Raises
        ------
        UnknownSiteError
            Naming the unknown sites and those that exist.
        """
        unknown = [site for site in sites if site not in self.site_names]
        if unknown:
            raise UnknownSiteError(
                f"The model has no site {', '.join(map(repr, unknown))}; it has {', '.join(self.site_names)}."
            )

    def layer_of(self, site: str) -> int:
        """Index of a site's block; -1 for ``embeddings``."""
        self.check_sites([site])
        return -1 if site == _EMBEDDINGS else int(site.split(".")[1])

    def batches(
        self, tokens: Sequence[TokenizedSequence], token_budget: int = DEFAULT_TOKEN_BUDGET
    ) -> list[Int[np.ndarray, " batch"]]:
        """Index arrays of batches of nearly one length."""
        return length_batches(np.array([t.ids.size for t in tokens], dtype=np.int64), token_budget)

    def tensors(
        self, tokens: Sequence[TokenizedSequence]
    ) -> tuple[Int[Tensor, "batch time"], Bool[Tensor, "batch time"]]:
        """Token ids and nucleotide mask of a batch, right-padded, on the model's device."""
        ids, is_nucleotide = pad_batch(tokens)
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(is_nucleotide).to(self.device)

    def hidden(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time hidden"]:
        """Last hidden states (after the final norm). Differentiable; rows at padding mean nothing."""
        return self._network(input_ids=ids, use_cache=False, return_dict=True).last_hidden_state

    def pool(
        self, hidden: Float[Tensor, "batch time hidden"], is_nucleotide: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch hidden"]:
        """Mean over nucleotide tokens, in at least float32: neither ``E`` nor padding counts."""
        hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        weights = is_nucleotide.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)

    @torch.no_grad()
    def embed(
        self,
        tokens: Sequence[TokenizedSequence],
        token_budget: int = DEFAULT_TOKEN_BUDGET,
        on_batch: Callable[[int], None] | None = None,
    ) -> Float[np.ndarray, "n hidden"]:
        """Mean-pooled embeddings, in the order of the input.

        Parameters
        ----------
        tokens : sequence of TokenizedSequence
        token_budget : int
            Tokens a batch.
        on_batch : callable, optional
            Called with the number of sequences of each finished batch.
        """
        out = np.empty(
            (len(tokens), self.hidden_size), dtype=np.float64 if self.dtype == torch.float64 else np.float32
        )
        for index in self.batches(tokens, token_budget):
            ids, is_nucleotide = self.tensors([tokens[i] for i in index])
            out[index] = self.pool(self.hidden(ids), is_nucleotide).cpu().numpy()
            if on_batch is not None:
                on_batch(len(index))
        return out

    @torch.no_grad()
    def capture(
        self, ids: Int[Tensor, "batch time"], sites: Sequence[str]
    ) -> dict[str, Float[Tensor, "batch time hidden"]]:
        """Activations at several sites, in one pass that stops after the last of them.

        Raises
        ------
        UnknownSiteError
            If a site does not exist.
        """
        self.check_sites(sites)
        last = max((self.layer_of(site) for site in sites), default=-1)
        captured: dict[str, Tensor] = {}
        with self.edited({site: partial(record, captured, site) for site in sites}):
            hidden = self._network.embeddings(ids)
            for layer in self._network.layers[: last + 1]:
                hidden = apply_layer(layer, hidden)[0]
        return {site: captured[site] for site in sites}

    def cache(self, ids: Int[Tensor, "batch time"]) -> ResidualCache:
        """The residual stream before each layer and after the last. Differentiable unless gradients are off."""
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
        """Run on from a site.

        Parameters
        ----------
        site : str
        value : float (batch, time, hidden)
            The activation to put there.
        cache : ResidualCache
            Of the same batch.
        hooks : mapping of site to edit, optional
            Edits at *later* sites.

        Returns
        -------
        float (batch, time, hidden)
            Last hidden states, equal to those of :meth:`run` with the same change. Differentiable.
        """
        index = self.layer_of(site)
        with self.edited(hooks or {}):
            hidden = self._leave_layer(site, value, cache.residual[max(index, 0)])
            for layer in self._network.layers[index + 1 :]:
                hidden = apply_layer(layer, hidden)[0]
            return self._network.norm_f(hidden)

    def prefix_states(self, cache: ResidualCache, start: int) -> PrefixStates:
        """What the tokens before ``start`` hand on to those after, for :meth:`resume_suffix`.

        Parameters
        ----------
        cache : ResidualCache
            Of a whole pass, edited or not; its edits stay in force for the prefix.
        start : int
            First token that any later change touches, from 0 to the number of tokens, exclusive.

        Raises
        ------
        ModelError
            If there is no token from ``start`` on.
        """
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
        """Run on from a site over the tokens from ``prefix.start`` on only.

        Parameters
        ----------
        site : str
        value : float (n, suffix, hidden)
            The activation to put there, at the tokens of the suffix.
        prefix : PrefixStates
            Of the same sequences: all of the batch, or those picked with its ``rows``.
        hooks : mapping of site to edit, optional
            Edits at *later* sites; they see the suffix only.
        changed : bool (n, suffix), optional
            Tokens at which ``value`` is another than in the pass that the prefix is from. Until tokens are mixed again the
            others are as they were there, and are not computed anew. Not with hooks.
        still : StillTokens, optional
            Tokens that are the same in all passes that are given this object, whatever their hooks do, and in which no
            gradient is wanted.

        Raises
        ------
        ValueError
            If ``changed`` is given with hooks.

        Returns
        -------
        float (n, suffix, hidden)
            Last hidden states of the suffix: those of :meth:`resume` when nothing changes before it. Differentiable.
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
        """:meth:`pool` of whole sequences from a resumed suffix.

        Parameters
        ----------
        hidden : float (n, suffix, hidden)
            From :meth:`resume_suffix`.
        prefix : PrefixStates
            As given to it.
        is_nucleotide : bool (batch, time)
            Of the whole batch that :meth:`prefix_states` saw, before any ``rows``.
        """
        return pool_suffix(hidden, prefix, is_nucleotide)

    def run(
        self, ids: Int[Tensor, "batch time"], edits: Mapping[str, Edit]
    ) -> Float[Tensor, "batch time hidden"]:
        """A whole pass with edits at some sites: the plain twin of :meth:`resume`."""
        with self.edited(edits):
            return self.hidden(ids)

    @contextmanager
    def edited(self, edits: Mapping[str, Edit]) -> Iterator[None]:
        """Within the block, the output of each named site is replaced by what its edit returns."""
        self.check_sites(list(edits))
        handles = [
            self.module.get_submodule(site).register_forward_hook(_hook(edit)) for site, edit in edits.items()
        ]
        self._edits.append(edits)
        try:
            yield
        finally:
            self._edits.pop()
            for handle in handles:
                handle.remove()

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


def record(seen: dict[str, Tensor], site: str, activation: Tensor) -> Tensor:
    """An edit that changes nothing (once ``seen`` and ``site`` are bound): it notes the activation that it is given."""
    seen[site] = activation
    return activation


def _hook(edit: Edit) -> Callable[[nn.Module, Any, Any], Any]:
    """A forward hook: blocks return a tuple whose first element is the activation, mixers the activation itself."""

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (edit(output[0]), *output[1:])
        return edit(output)

    return hook
