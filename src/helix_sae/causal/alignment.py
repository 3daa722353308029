"""Which token of one sequence stands for which token of another."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from Bio.Align import PairwiseAligner
from jaxtyping import Bool, Int

from helix_sae.causal.terms import Positions
from helix_sae.mrna.tokens import CodonMarkers, TokenizedSequence, tokenize


class TokenPair(NamedTuple):
    """Source and target as the model reads them, and the tokens they have in common.

    Attributes
    ----------
    source, target : TokenizedSequence
    source_row, target_row : int64 (n_aligned,)
        Aligned tokens: row ``source_row[k]`` of the source stands for row ``target_row[k]`` of the target.
    edited : bool (n_aligned,)
        Whether the two nucleotides differ; False at codon markers.
    first : int
        First source token that differs; before it a causal model computes the same in both. The source's
        length when nothing differs.
    """

    source: TokenizedSequence
    target: TokenizedSequence
    source_row: Int[np.ndarray, " n_aligned"]
    target_row: Int[np.ndarray, " n_aligned"]
    edited: Bool[np.ndarray, " n_aligned"]
    first: int

    def reversed(self) -> TokenPair:
        """The same pair with source and target exchanged."""
        # Up to the first difference both sides have the same tokens, so `first` holds for either, except when
        # one sequence is a prefix of the other: it then is the shorter one's length, which is still a valid
        # bound.
        return TokenPair(self.target, self.source, self.target_row, self.source_row, self.edited, self.first)


def align_nucleotides(source: str, target: str) -> Int[np.ndarray, "2 n_aligned"]:
    """Matched columns of two sequences.

    Sequences of one length are taken to differ by substitutions. Others are aligned globally
    (Needleman-Wunsch with affine gaps: match 1, mismatch -1, opening -2, extension -0.5), end gaps charged
    like inner ones.

    Returns
    -------
    int64 (2, n_aligned)
        Positions in the source and in the target.
    """
    if len(source) == len(target):
        return np.tile(np.arange(len(source)), (2, 1))
    alignment = _aligner().align(source, target)[0]
    blocks = zip(*alignment.aligned, strict=True)
    columns = [np.stack([np.arange(*a), np.arange(*b)]) for a, b in blocks]
    return np.concatenate(columns, axis=1).astype(np.int64) if columns else np.zeros((2, 0), dtype=np.int64)


@cache
def _aligner() -> PairwiseAligner:
    aligner = PairwiseAligner(mode="global")
    aligner.match_score, aligner.mismatch_score = 1.0, -1.0
    aligner.open_gap_score, aligner.extend_gap_score = -2.0, -0.5
    return aligner


def align_tokens(
    source: TokenizedSequence, target: TokenizedSequence, sequences: tuple[str, str]
) -> TokenPair:
    """Lift the alignment of two sequences to their tokens.

    A codon marker is matched when the nucleotides after it are matched and both sequences have a marker
    there.

    Parameters
    ----------
    source, target : TokenizedSequence
    sequences : (str, str)
        The nucleotides of both.
    """
    left, right = align_nucleotides(*sequences)
    rows = [_matched_rows(source, target, left, right, nucleotides) for nucleotides in (True, False)]
    joined = np.concatenate(rows, axis=1)
    source_row, target_row = joined[:, np.argsort(joined[0], kind="stable")]
    edited = (source.ids[source_row] != target.ids[target_row]) & source.is_nucleotide[source_row]
    return TokenPair(
        source, target, source_row, target_row, edited, _first_difference(source.ids, target.ids)
    )


def align_table(pairs: pd.DataFrame, codon_markers: CodonMarkers = "cds") -> list[TokenPair]:
    """Tokenize and align every row of a table of pairs (see :mod:`helix_sae.causal.pairs`)."""
    sides = {
        side: [
            tokenize(sequence, _optional(start), _optional(end), codon_markers)
            for sequence, start, end in zip(
                *(pairs[f"{side}_{name}"] for name in ("sequence", "cds_start", "cds_end")), strict=True
            )
        ]
        for side in ("source", "target")
    }
    names: Sequence[tuple[str, str]] = list(
        zip(pairs["source_sequence"], pairs["target_sequence"], strict=True)
    )
    return [align_tokens(a, b, s) for a, b, s in zip(sides["source"], sides["target"], names, strict=True)]


def patched_rows(pair: TokenPair, positions: Positions) -> Bool[np.ndarray, " n_aligned"]:
    """Which of the aligned tokens a patch may touch: none before the first difference, where nothing differs."""
    behind = pair.source_row >= pair.first
    if positions == "tokens":
        return behind
    if positions == "edited":
        return behind & pair.edited
    return behind & pair.source.is_nucleotide[pair.source_row]


def _matched_rows(
    source: TokenizedSequence,
    target: TokenizedSequence,
    left: Int[np.ndarray, " n"],
    right: Int[np.ndarray, " n"],
    nucleotides: bool,
) -> Int[np.ndarray, "2 m"]:
    """Token rows of matched nucleotides, or of the markers before them where both have one."""
    row_of = [_row_of_nucleotide(tokens, nucleotides) for tokens in (source, target)]
    rows = np.stack([row_of[0][left], row_of[1][right]])
    return rows[:, (rows >= 0).all(axis=0)]


def _row_of_nucleotide(tokens: TokenizedSequence, nucleotides: bool) -> Int[np.ndarray, " length"]:
    """Row of each nucleotide (or of the marker before it), -1 where there is none."""
    rows = np.full(int(tokens.nucleotide.max()) + 1, -1, dtype=np.int64)
    chosen = np.flatnonzero(tokens.is_nucleotide == nucleotides)
    rows[tokens.nucleotide[chosen]] = chosen
    return rows


def _first_difference(a: Int[np.ndarray, " n"], b: Int[np.ndarray, " m"]) -> int:
    shared = min(a.size, b.size)
    differs = np.flatnonzero(a[:shared] != b[:shared])
    return int(differs[0]) if differs.size else shared


def _optional(value: object) -> int | None:
    return None if pd.isna(value) else int(value)  # type: ignore[arg-type]
