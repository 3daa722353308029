"""Coding sequences as codon indices, and what is computed from them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from helix_sae.mrna.encoding import C, FlatSequences, G
from helix_sae.mrna.tables import RELATIVE_ADAPTIVENESS, STABILITY

UNKNOWN = 64
"""Index of a codon with an ``N``."""


class CodonTrack(NamedTuple):
    """Every complete codon of a batch of coding sequences.

    Attributes
    ----------
    codon : (n_codons,) int64
        Index into :data:`helix_sae.mrna.tables.CODONS`, or ``UNKNOWN``.
    record : (n_codons,) int64
        Sequence of each codon, ascending.
    start : (n_codons,) int64
        Flat index of each codon's first nucleotide.
    """

    codon: Int[np.ndarray, " n_codons"]
    record: Int[np.ndarray, " n_codons"]
    start: Int[np.ndarray, " n_codons"]


def codon_track(
    flat: FlatSequences, cds_start: Int[np.ndarray, " n"], cds_end: Int[np.ndarray, " n"]
) -> CodonTrack:
    """Read the complete codons of ``[cds_start, cds_end)``.

    Parameters
    ----------
    flat : FlatSequences
        Encoded sequences.
    cds_start, cds_end : (n,) int
        0-based half-open coding sequence of each record; negative where unknown (then it has no codons).
        Nucleotides after the last complete codon are left out.
    """
    n_codons = np.where((cds_start >= 0) & (cds_end >= 0), np.maximum(cds_end - cds_start, 0) // 3, 0)
    record = np.repeat(np.arange(len(n_codons)), n_codons)
    rank = np.arange(len(record)) - np.repeat(np.cumsum(n_codons) - n_codons, n_codons)
    start = flat.offsets[record] + cds_start[record] + 3 * rank
    letters = flat.codes[start[:, None] + np.arange(3)].astype(np.int64)
    codon = np.where((letters < 4).all(axis=1), letters @ np.array([16, 4, 1]), UNKNOWN)
    return CodonTrack(codon, record, start)


def mean_over_codons(track: CodonTrack, value: Float[np.ndarray, " 64"], n: int) -> Float[np.ndarray, " n"]:
    """Mean of a per-codon value over each record's codons; codons whose value is NaN are left out.

    Returns
    -------
    (n,) float64
        NaN where a record has no codon with a value.
    """
    of_codon = np.append(value, np.nan)[track.codon]
    known = ~np.isnan(of_codon)
    total = np.bincount(track.record[known], weights=of_codon[known], minlength=n)
    count = np.bincount(track.record[known], minlength=n)
    return np.divide(total, count, out=np.full(n, np.nan), where=count > 0)


def mean_stability(track: CodonTrack, n: int) -> Float[np.ndarray, " n"]:
    """Mean codon stability coefficient of each record (the start codon counts, the stop codon has none)."""
    return mean_over_codons(track, STABILITY, n)


def log_adaptation(track: CodonTrack, n: int) -> Float[np.ndarray, " n"]:
    """Natural logarithm of the codon adaptation index of each record, human usage.

    Codons without a synonym (AUG, UGG) and stops are left out, as in Sharp and Li (1987).
    """
    return mean_over_codons(track, _LOG_ADAPTIVENESS, n)


def gc3_content(flat: FlatSequences, track: CodonTrack, n: int) -> Float[np.ndarray, " n"]:
    """GC fraction of the third codon positions of each record (N left out); NaN without codons."""
    third = flat.codes[track.start + 2]
    strong = np.bincount(track.record, weights=(third == G) | (third == C), minlength=n)
    known = np.bincount(track.record, weights=third < 4, minlength=n)
    return np.divide(strong, known, out=np.full(n, np.nan), where=known > 0)


def _log_adaptiveness() -> Float[np.ndarray, " 64"]:
    value = np.log(RELATIVE_ADAPTIVENESS)
    value[[14, 58]] = np.nan  # AUG and UGG
    value[np.isnan(STABILITY)] = np.nan
    return value


_LOG_ADAPTIVENESS = _log_adaptiveness()
