"""In which order each seed sees the data: one stream of batches for all, or one a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.errors import DataError
from helix_sae.sae.metrics import as_batch

SiteBatch = Mapping[str, Float[Tensor, "batch d_in"]]
Batches = Iterable[SiteBatch]

SHARED = -1
"""Stands for the order of all seeds where they share one."""


class Orders:
    """The batches of a run, by the seed of their order.

    Parameters
    ----------
    batches : iterable of mapping of site to (batch, d_in) array, or function of a seed that gives one
        The same batches for every seed, or an order for each.
    seed : int
        Seed of the run: of the order that a sample is taken from.
    """

    def __init__(self, batches: Batches | Callable[[int], Batches], seed: int) -> None:
        self._of = batches if callable(batches) else None
        self._seed = seed
        self.first: Batches = batches(seed) if callable(batches) else batches
        self._stream = iter(self.first)
        self._head: list[dict[str, Tensor]] = []
        self.samples: dict[str, Tensor] = {}

    def sample(self, sites: Sequence[str] | None, n_tokens: int) -> dict[str, Float[Tensor, "n d_in"]]:
        """Take the first ``n_tokens`` tokens (or a few more) of the wanted sites; they are given again as batches.

        Raises
        ------
        DataError
            If there is no token, or a site is missing.
        """
        self._head = take_head(self._stream, sites, n_tokens)
        self.samples = {site: torch.cat([batch[site] for batch in self._head]) for site in self._head[0]}
        return self.samples

    def batches(self, seeds: Iterable[int]) -> Iterator[dict[int, SiteBatch]]:
        """Give the batches of each seed side by side, from the start; to be called once."""
        own = chain(self._head, self._stream)
        self._head = []
        if self._of is None:
            return ({SHARED: batch} for batch in own)
        streams = {seed: own if seed == self._seed else iter(self._of(seed)) for seed in sorted(set(seeds))}
        return (dict(zip(streams, batches, strict=True)) for batches in zip(*streams.values(), strict=False))


def take_head(
    stream: Iterator[SiteBatch], sites: Sequence[str] | None, n_tokens: int
) -> list[dict[str, Float[Tensor, "batch d_in"]]]:
    """The first batches, enough of them for ``n_tokens`` tokens, checked."""
    head: list[dict[str, Tensor]] = []
    widths: dict[str, int] = {}
    taken = 0
    for batch in stream:
        if not head:
            wanted = list(batch) if sites is None else list(sites)
            missing = [site for site in wanted if site not in batch]
            if missing or not wanted:
                raise DataError(
                    f"The activations have the sites {sorted(batch)}; {missing or 'none'} were asked for."
                )
            widths = {site: int(np.shape(batch[site])[-1]) for site in wanted}
        head.append({site: as_batch(batch[site], width, f"site {site}") for site, width in widths.items()})
        taken += next(iter(head[-1].values())).shape[0]
        if taken >= n_tokens:
            break
    if taken == 0:
        raise DataError("There is no batch to train on: no activations were given.")
    return head
