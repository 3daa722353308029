"""Shuffled batches of rows: the same stream for what is stored, what is computed on the way, and arrays in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

Chunk = Mapping[str, Float[Any, "rows _"]]
"""Rows of each site, arrays or tensors, the same rows of all sites."""


class Batches:
    """Shuffled batches of rows, the same ones for all sites; iterable as often as you like, the same each time.

    Parameters
    ----------
    chunks : callable
        From a random generator (None where the order is to be kept) to the rows of one epoch, as many at a
        time as memory is to hold. Each row comes once.
    n_tokens : int
        Rows of one epoch.
    batch_size : int
        Rows of a batch. The last one of an epoch may have fewer.
    seed : int, optional
        Of the shuffling, another one each epoch; None keeps the order.
    epochs : int
        How often all rows are gone through.
    """

    def __init__(
        self,
        chunks: Callable[[np.random.Generator | None], Iterable[Chunk]],
        *,
        n_tokens: int,
        batch_size: int,
        seed: int | None,
        epochs: int = 1,
    ) -> None:
        self.chunks = chunks
        self.n_tokens = n_tokens
        self.batch_size = batch_size
        self.seed = seed
        self.epochs = epochs

    def __len__(self) -> int:
        return self.epochs * -(-self.n_tokens // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Float[Any, "batch _"]]]:
        for epoch in range(self.epochs):
            rng = None if self.seed is None else np.random.default_rng([self.seed, epoch])
            yield from cut(self.chunks(rng), self.batch_size, rng)


def cut(
    chunks: Iterable[Chunk], batch_size: int, rng: np.random.Generator | None
) -> Iterator[dict[str, Float[Any, "batch _"]]]:
    """Shuffle the rows of each chunk, the same way for all sites, and cut them into batches.

    Rows that do not fill a batch wait for the next chunk; what is left at the end is a smaller batch.
    """
    waiting: Chunk = {}
    for chunk in chunks:
        n_rows, n_waiting = _length(chunk), _length(waiting)
        order = np.arange(n_rows) if rng is None else rng.permutation(n_rows)
        end = 0
        for end in range(batch_size - n_waiting, n_rows + 1, batch_size):
            rows = order[max(0, end - batch_size) : end]
            yield _joined(waiting, {site: _rows(values, rows) for site, values in chunk.items()})
            waiting = {}
        rows = order[max(0, end) :]
        if rows.size:
            waiting = _joined(waiting, {site: _rows(values, rows) for site, values in chunk.items()})
    if waiting:
        yield dict(waiting)


def _rows(values: Any, rows: Int[np.ndarray, " n"]) -> Float[Any, "n _"]:
    """Some rows, copied as a whole each: several times as fast as indexing, which goes through single numbers."""
    if isinstance(values, torch.Tensor):
        return values.index_select(0, torch.from_numpy(rows).to(values.device))
    return np.take(values, rows, axis=0)


def _length(chunk: Chunk) -> int:
    return len(next(iter(chunk.values()))) if chunk else 0


def _joined(first: Chunk, second: Chunk) -> dict[str, Any]:
    """Rows of one chunk after those of another, which may be none."""
    if not first:
        return dict(second)
    return {site: np.concatenate([first[site], rows]) for site, rows in second.items()}
