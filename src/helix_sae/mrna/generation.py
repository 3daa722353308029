"""Random sequences with the statistics of mRNA: the raw material of the simulator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy.special import ndtr, ndtri

from helix_sae.mrna.encoding import A, C, FlatSequences, G, U, find_motif, parse_motif
from helix_sae.mrna.tables import CODON_USAGE, CODONS, GENETIC_CODE, RELATIVE_USAGE, STOP_FREQUENCIES, STOPS

DIVERGENCE = (0.05, 0.10)
"""Range of the share of nucleotides in which a family member differs from its mother."""

_DINUCLEOTIDE_ODDS = np.array(
    [[1.05, 0.90, 1.15, 0.90], [1.15, 1.10, 0.65, 1.10], [1.05, 1.00, 1.10, 0.90], [0.70, 1.05, 1.15, 1.10]]
)
"""Observed over expected dinucleotides, previous nucleotide by row (A, C, G, U).

Stylised after vertebrate transcripts: few CpG and UpA, an excess of CpA and UpG. Not an estimate from a data
set.
"""

_GC_STEP = 0.025
_GC_GRID = np.arange(0.15, 0.8501, _GC_STEP)
_USAGE = np.array([CODON_USAGE[codon] for codon in CODONS])
_IS_STOP = np.array([GENETIC_CODE[codon] == "*" for codon in CODONS])
_ENDS_IN_GC = np.array([codon[2] in "CG" for codon in CODONS])


def _transition_tables() -> Float[np.ndarray, "n_gc 4 4"]:
    """Cumulative first-order transition tables, one per GC content of ``_GC_GRID``.

    The joint dinucleotide distribution has the wanted composition as both of its margins (Sinkhorn scaling of
    the odds), hence that composition is the chain's stationary distribution.
    """
    tables: list[Float[np.ndarray, "4 4"]] = []
    for gc in _GC_GRID:
        composition = np.array([(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2])
        joint = _DINUCLEOTIDE_ODDS * composition[:, None] * composition
        for _ in range(200):
            joint *= (composition / joint.sum(axis=1))[:, None]
            joint *= composition / joint.sum(axis=0)
        tables.append(np.cumsum(joint / joint.sum(axis=1, keepdims=True), axis=1))
    return np.stack(tables)


def markov_sequences(
    lengths: Int[np.ndarray, " n"], gc: Float[np.ndarray, " n"], rng: np.random.Generator
) -> FlatSequences:
    """First-order Markov sequences with vertebrate-like dinucleotides.

    Parameters
    ----------
    lengths : (n,) int
        Length of each sequence, in nucleotides.
    gc : (n,) float
        Expected GC content of each sequence, rounded to the nearest 0.025 within [0.15, 0.85].
    rng : numpy.random.Generator
        Source of randomness.
    """
    n, longest = len(lengths), int(lengths.max(initial=0))
    level = np.clip(np.rint((gc - _GC_GRID[0]) / _GC_STEP), 0, len(_GC_GRID) - 1).astype(np.int64)
    tables = _transition_tables()[:, :, :3]
    matrix = np.zeros((longest, n), dtype=np.uint8)
    at_gc = _GC_GRID[level]
    edges = np.stack([(1 - at_gc) / 2, np.full(n, 0.5), (1 + at_gc) / 2], axis=1)
    for row in range(longest):
        matrix[row] = (rng.random(n)[:, None] > edges).sum(axis=1)
        edges = tables[level, matrix[row]]
    kept = np.arange(longest)[:, None] < lengths
    return FlatSequences(matrix.T[kept.T], offsets_of(lengths))


def coding_sequences(
    n_codons: Int[np.ndarray, " n"],
    tau: Float[np.ndarray, " n"],
    gc3_tilt: Float[np.ndarray, " n"],
    rng: np.random.Generator,
) -> FlatSequences:
    """Coding sequences: AUG, codons drawn gene by gene, and a stop.

    Amino acids have their human frequencies. Within an amino acid a codon's weight is its human usage to the
    power ``tau``, times ``exp(gc3_tilt)`` when it ends in G or C.

    Parameters
    ----------
    n_codons : (n,) int
        Sense codons of each gene, the start codon included.
    tau : (n,) float
        Strength of the codon bias: 0 uniform, 1 that of the genome.
    gc3_tilt : (n,) float
        Log-odds in favour of G or C in third position.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    FlatSequences
        ``3 * (n_codons + 1)`` nucleotides each.
    """
    n = len(n_codons)
    cumulative = np.cumsum(_codon_probabilities(tau, gc3_tilt), axis=1)
    total = n_codons + 1
    gene = np.repeat(np.arange(n), total)
    # One sorted ladder for all genes: gene g occupies (g, g + 1].
    ladder = (cumulative / cumulative[:, -1:] + np.arange(n)[:, None]).ravel()
    drawn = np.searchsorted(ladder, gene + rng.random(len(gene)), side="right") - 64 * gene
    last = np.cumsum(total) - 1
    drawn[last - total + 1] = CODONS.index("AUG")
    shares = np.array([STOP_FREQUENCIES[codon] for codon in STOPS])
    drawn[last] = rng.choice([CODONS.index(codon) for codon in STOPS], size=n, p=shares / shares.sum())
    letters = np.stack([drawn // 16, drawn // 4 % 4, drawn % 4], axis=1).astype(np.uint8)
    return FlatSequences(letters.ravel(), offsets_of(3 * total))


def _codon_probabilities(
    tau: Float[np.ndarray, " n"], gc3_tilt: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n 64"]:
    amino = np.array([GENETIC_CODE[codon] for codon in CODONS])
    weight = np.where(_IS_STOP, 0.0, RELATIVE_USAGE ** tau[:, None] * np.exp(gc3_tilt[:, None] * _ENDS_IN_GC))
    for residue in sorted(set(amino[~_IS_STOP])):
        members = amino == residue
        weight[:, members] *= _USAGE[members].sum() / weight[:, members].sum(axis=1, keepdims=True)
    return weight / weight.sum(axis=1, keepdims=True)


def truncated_log_normal(
    n: int, median: float, sigma: float, limits: tuple[int, int], rng: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """Integer draws from a log-normal distribution restricted to ``limits`` (inclusive)."""
    low, high = (ndtr(np.log(limit / median) / sigma) for limit in limits)
    quantile = rng.uniform(low, high, size=n)
    return np.clip(np.rint(median * np.exp(sigma * ndtri(quantile))), *limits).astype(np.int64)


def set_upstream_augs(
    utrs: FlatSequences,
    present: Bool[np.ndarray, " n"],
    eligible: Bool[np.ndarray, " n"],
    rng: np.random.Generator,
) -> UInt8[np.ndarray, " n_nucleotides"]:
    """Remove every AUG from some 5'UTRs and make sure that others have one.

    Parameters
    ----------
    utrs : FlatSequences
        The 5'UTRs; not changed.
    present, eligible : (n,) bool
        Whether a 5'UTR is to have an upstream AUG; those not eligible are left alone.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    (n_nucleotides,) uint8
        The new codes. An AUG is removed by turning one of its nucleotides into C, which makes no other AUG or
        stop.
    """
    codes = utrs.codes.copy()
    hits = find_motif(utrs, parse_motif("AUG"))
    record = np.searchsorted(utrs.offsets, hits, side="right") - 1
    removed = hits[(eligible & ~present)[record]]
    codes[removed + rng.integers(0, 3, size=len(removed))] = C
    lacking = eligible & present & (utrs.lengths >= 3)
    lacking[record] = False
    chosen = np.flatnonzero(lacking)
    at = utrs.offsets[:-1][chosen] + rng.integers(0, utrs.lengths[chosen] - 2)
    for shift, code in enumerate((A, U, G)):
        codes[at + shift] = code
    return codes


def plant(
    codes: UInt8[np.ndarray, " n_nucleotides"],
    at: Int[np.ndarray, " n"],
    words: Sequence[str],
    which: Int[np.ndarray, " n"],
) -> None:
    """Write ``words[which[i]]`` into the flat codes at index ``at[i]``, in place."""
    for index, word in enumerate(words):
        chosen = at[which == index]
        for shift, letter in enumerate(word):
            codes[chosen + shift] = "ACGU".index(letter)


def diverge(
    mothers: FlatSequences,
    family: Int[np.ndarray, " n"],
    rng: np.random.Generator,
    coding: tuple[Int[np.ndarray, " n_families"], Int[np.ndarray, " n_families"]] | None = None,
    divergence: tuple[float, float] = DIVERGENCE,
) -> FlatSequences:
    """Copy mothers with point substitutions; the first member of each family is the mother herself.

    Parameters
    ----------
    mothers : FlatSequences
        One sequence per family.
    family : (n,) int
        Index of each member's mother, ascending.
    rng : numpy.random.Generator
        Source of randomness.
    coding : (starts, ends), optional
        Coding sequence of each mother: its start and stop codons stay, and a codon that would become a stop
        stays.
    divergence : (float, float)
        Range from which each family draws its share of substituted nucleotides.
    """
    lengths = mothers.lengths[family]
    offsets = offsets_of(lengths)
    source = np.arange(offsets[-1]) + np.repeat(mothers.offsets[:-1][family] - offsets[:-1], lengths)
    original = mothers.codes[source]
    rate = rng.uniform(*divergence, size=len(mothers.lengths))[family]
    rate[np.flatnonzero(np.diff(family, prepend=-1))] = 0.0
    changed = rng.random(len(original)) < np.repeat(rate, lengths)
    shift = rng.integers(1, 4, size=len(original), dtype=np.uint8)
    copies = FlatSequences(np.where(changed, (original + shift) % 4, original).astype(np.uint8), offsets)
    if coding is not None:
        _keep_reading_frames(copies, original, coding[0][family], coding[1][family])
    return copies


def _keep_reading_frames(
    copies: FlatSequences,
    original: UInt8[np.ndarray, " n_nucleotides"],
    cds_start: Int[np.ndarray, " n"],
    cds_end: Int[np.ndarray, " n"],
) -> None:
    """Undo, in place, the substitutions that touch a start or stop codon or make a new stop in frame."""
    first = copies.offsets[:-1] + cds_start
    n_codons = (cds_end - cds_start) // 3
    rank = np.arange(int(n_codons.sum())) - np.repeat(offsets_of(n_codons)[:-1], n_codons)
    at = (np.repeat(first, n_codons) + 3 * rank)[:, None] + np.arange(3)
    index = copies.codes[at].astype(np.int64) @ np.array([16, 4, 1])
    undone = _IS_STOP[index] | (rank == 0) | (rank == np.repeat(n_codons, n_codons) - 1)
    copies.codes[at[undone]] = original[at[undone]]


def join(parts: Sequence[FlatSequences]) -> FlatSequences:
    """Concatenate batches sequence by sequence: the first of each, then the second of each, and so on."""
    lengths = np.sum([part.lengths for part in parts], axis=0)
    joined = FlatSequences(np.empty(int(lengths.sum()), dtype=np.uint8), offsets_of(lengths))
    begin = joined.offsets[:-1].copy()
    for part in parts:
        target = np.arange(len(part.codes)) + np.repeat(begin - part.offsets[:-1], part.lengths)
        joined.codes[target] = part.codes
        begin += part.lengths
    return joined


def offsets_of(lengths: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n_plus_1"]:
    """Offsets of sequences with the given lengths laid end to end."""
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
