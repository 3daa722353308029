"""Batches of sequences of nearly one length, so that next to no padding is computed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

DEFAULT_TOKEN_BUDGET = 8192
MAX_PADDING = 0.05
"""Largest share of a batch that may be padding."""


def length_batches(
    lengths: Int[np.ndarray, " n"],
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    max_padding: float = MAX_PADDING,
    rng: np.random.Generator | None = None,
) -> list[Int[np.ndarray, " batch"]]:
    """Group sequences by length.

    Parameters
    ----------
    lengths : int (n,)
        Tokens of each sequence.
    token_budget : int
        Largest batch, in tokens with padding; a longer sequence is a batch of its own.
    max_padding : float
        Largest share of padding in a batch; 0 puts only equal lengths together.
    rng : numpy Generator, optional
        Shuffles sequences of equal length and the order of the batches. Without it the order is that of the
        lengths, ties in input order.

    Returns
    -------
    list of int arrays
        Indices into ``lengths``; each index once.
    """
    order = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
    order = order[np.argsort(lengths[order], kind="stable")]
    batches = list(_split_sorted(order, lengths[order], token_budget, max_padding))
    if rng is not None:
        batches = [batches[i] for i in rng.permutation(len(batches))]
    return batches


def _split_sorted(
    order: Int[np.ndarray, " n"], sizes: Int[np.ndarray, " n"], token_budget: int, max_padding: float
) -> Iterator[Int[np.ndarray, " batch"]]:
    """Cut an ascending list of lengths where the next sequence would break the budget or the padding bound."""
    start, total = 0, 0
    for i, size in enumerate(sizes.tolist()):
        padded = (i - start + 1) * size
        if i > start and (padded > token_budget or padded - (total + size) > max_padding * padded):
            yield order[start:i]
            start, total = i, 0
        total += size
    if len(order) > start:
        yield order[start:]
