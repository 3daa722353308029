"""Models that are a chain of residual blocks, and the short ways that a chain offers.

Of a pass only the residual stream between the blocks is kept: a site is read again by running one block, and
a change is run on through the blocks behind it. A block that hands on no more of the tokens before than a
state (the state of a scan, keys and values) runs over the end of a sequence alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from helix_sae.models.contract import Edit, Model, StillTokens, record, widened
from helix_sae.models.suffix import BlockState, PrefixStates, pool_suffix, prefix_states

_EMBEDDINGS = "embeddings"


class ResidualCache(NamedTuple):
    """What a pass left behind: enough to run on from any site.

    Attributes
    ----------
    residual : tuple of float (batch, time, hidden)
        ``residual[k]`` enters block ``k``; the last one leaves the last block.
    """

    residual: tuple[Float[Tensor, "batch time hidden"], ...]

    def rows(self, index: Int[Tensor, " n"]) -> ResidualCache:
        """The cache of some sequences of the batch, repeats allowed."""
        return ResidualCache(tuple(r.index_select(0, index) for r in self.residual))


class ChainModel(Model):
    """A network with ``embeddings``, ``layers`` and a final norm ``norm_f``.

    ``layers.k`` is the residual stream after block ``k``, ``layers.k.mixer`` (or another of its ``parts``)
    what that part adds to it, and ``embeddings`` stands at the start. The mixers are looked at when no site
    is named.

    Parameters
    ----------
    module : nn.Module
    fingerprint : str
        Identifies the weights.

    Attributes
    ----------
    parts : tuple of str
        Of the class: submodules of a block that are sites, in the order in which a pass reaches them.
    """

    parts: ClassVar[tuple[str, ...]] = ("mixer",)

    def __init__(self, module: nn.Module, *, fingerprint: str) -> None:
        sites = _site_names(module, self.parts)
        mixers = [name for name in sites if name.endswith(".mixer")]
        super().__init__(module, sites, default_sites=mixers, fingerprint=fingerprint)

    @property
    def network(self) -> Any:
        """The module, whose attributes no type checker knows."""
        return self.module

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return int(self.network.embeddings.weight.shape[1])

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.network.layers)

    # What a chain has to say of its blocks, where it is not this.

    def block(
        self, k: int, hidden: Float[Tensor, "batch time hidden"], state: Any = None
    ) -> Float[Tensor, "batch time hidden"]:
        """The residual stream after block ``k``; with a state, of tokens that come after those that left it."""
        raise NotImplementedError

    def block_state(self, k: int, residual: Float[Tensor, "batch start hidden"]) -> BlockState | None:
        """What block ``k`` hands on after the tokens whose residual stream enters it; None if it mixes no tokens."""
        raise NotImplementedError

    def leave_block(
        self,
        k: int,
        part: str,
        residual: Float[Tensor, "batch time hidden"],
        value: Float[Tensor, "batch time hidden"],
        state: Callable[[], Any],
    ) -> Float[Tensor, "batch time hidden"]:
        """The residual stream after block ``k``, which ``residual`` enters, with ``value`` for what a part of it adds.

        ``state`` gives what the tokens before left there, where that is needed.
        """
        return residual + value

    def still_block(
        self,
        k: int,
        hidden: Float[Tensor, "batch time hidden"],
        state: Any,
        still: StillTokens,
    ) -> Float[Tensor, "batch time hidden"]:
        """:meth:`block`; what of it mixes no tokens is computed once for the still ones."""
        if state is not None:
            return self.block(k, hidden, state)
        return still.through(k, partial(self.block, k), hidden)

    # The short ways.

    @torch.no_grad()
    def capture(
        self, ids: Int[Tensor, "batch time"], sites: Sequence[str]
    ) -> dict[str, Float[Tensor, "batch time hidden"]]:
        """Activations at several sites, in one pass that stops after the last of them."""
        self.check_sites(sites)
        last = max((self.layer_of(site) for site in sites), default=-1)
        captured: dict[str, Tensor] = {}
        with self.edited({site: partial(record, captured, site) for site in sites}):
            hidden = self.network.embeddings(self.own_ids(ids))
            for k in range(last + 1):
                hidden = self.block(k, hidden)
        return {site: captured[site] for site in sites}

    def cache(self, ids: Int[Tensor, "batch time"]) -> ResidualCache:
        """The residual stream before each block and after the last."""
        residual = [self.network.embeddings(self.own_ids(ids))]
        for k in range(self.n_layers):
            residual.append(self.block(k, residual[-1]))
        return ResidualCache(tuple(residual))

    def at_site(self, site: str, cache: ResidualCache) -> Float[Tensor, "batch time hidden"]:
        """The activation at a site, computed again from the cached residual stream in one block."""
        k = self.layer_of(site)
        if k < 0:
            return widened(cache.residual[0])
        if site == f"layers.{k}":
            return widened(cache.residual[k + 1])
        captured: dict[str, Tensor] = {}
        with self.edited({site: partial(record, captured, site)}):
            self.block(k, cache.residual[k])
        return captured[site]

    def resume(
        self,
        site: str,
        value: Float[Tensor, "batch time hidden"],
        cache: ResidualCache,
        hooks: Mapping[str, Edit] | None = None,
    ) -> Float[Tensor, "batch time hidden"]:
        """Run on from a site, through the blocks behind it only."""
        first = self.layer_of(site)
        with self.edited(hooks or {}):
            hidden = self._leave(site, value, lambda: cache.residual[first], None)
            for k in range(first + 1, self.n_layers):
                hidden = self.block(k, hidden)
            return self.network.norm_f(hidden)

    def prefix_states(self, cache: ResidualCache, start: int) -> PrefixStates:
        """The states that the tokens before ``start`` leave in each block."""
        return prefix_states(self.block_state, self.network.norm_f, cache.residual, start)

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

        Tokens that have not ``changed`` are as they were in the pass that the prefix is from, until a block
        mixes tokens.
        """
        if changed is not None and hooks:
            raise ValueError("Hooks may change any token: give either `changed` or `hooks`.")
        first = self.layer_of(site)
        with self.edited(hooks or {}):
            edited = {self.layer_of(name) for edits in self._edits for name in edits}
            hidden = self._leave(site, value, lambda: prefix.pick(prefix.residual[first]), prefix)
            for k in range(first + 1, self.n_layers):
                state = prefix.state(k)
                changed = changed if state is None else None
                if changed is not None:
                    moved = self.block(k, hidden[changed].unsqueeze(0)).squeeze(0)
                    hidden = prefix.pick(prefix.residual[k + 1]).masked_scatter(changed.unsqueeze(-1), moved)
                elif still is not None and k not in edited:
                    hidden = self.still_block(k, hidden, state, still)
                else:
                    hidden = self.block(k, hidden, state)
            return self.network.norm_f(hidden)

    def pool_suffix(
        self,
        hidden: Float[Tensor, "n suffix hidden"],
        prefix: PrefixStates,
        is_nucleotide: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, "n hidden"]:
        """:meth:`pool` of whole sequences from a resumed suffix."""
        return pool_suffix(hidden, prefix, is_nucleotide)

    def _leave(
        self, site: str, value: Tensor, residual: Callable[[], Tensor], prefix: PrefixStates | None
    ) -> Tensor:
        """The residual stream after the site's block, with ``value`` at the site."""
        k = self.layer_of(site)
        block = f"layers.{k}"
        if k < 0 or site == block:
            return value
        hidden = self.leave_block(
            k,
            site.removeprefix(f"{block}."),
            residual(),
            value,
            lambda: None if prefix is None else prefix.state(k),
        )
        # The block itself was not called, so edits of what leaves it are made here.
        for edits in self._edits:
            if block in edits:
                hidden = edits[block](hidden)
        return hidden


def _site_names(module: nn.Module, parts: Sequence[str]) -> tuple[str, ...]:
    names = [_EMBEDDINGS]
    layers: Any = module.get_submodule("layers")
    for k, layer in enumerate(layers):
        names += [f"layers.{k}.{part}" for part in parts if hasattr(layer, part)]
        names.append(f"layers.{k}")
    return tuple(names)
