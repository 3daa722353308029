"""Sequences that are longer than what the model reads."""

from __future__ import annotations

from bisect import bisect_right
from typing import Literal

OnLongSequence = Literal["error", "cut", "set_aside"]

MAX_TOKENS = 12_288
"""Longest input of the released Helix-mRNA."""


def n_tokens(length: int, cds_start: int | None = None, cds_end: int | None = None) -> int:
    """Tokens of a sequence of so many nucleotides: with an ``E`` before each codon, and the closing ``[SEP]``.

    Parameters
    ----------
    length : int
        Nucleotides.
    cds_start, cds_end : int, optional
        Coding region, 0-based half-open; without its end it runs on past that of the sequence.
    """
    if cds_start is None:
        return length + 1
    end = length if cds_end is None else min(cds_end, length)
    return length + 1 + max(0, -((cds_start - end) // 3))


def fitting_length(length: int, cds_start: int | None, cds_end: int | None, max_tokens: int) -> int:
    """Most nucleotides of the 5' end that have at most so many tokens."""
    return bisect_right(range(length + 1), max_tokens, key=lambda n: n_tokens(n, cds_start, cds_end)) - 1
