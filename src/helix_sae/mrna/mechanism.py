"""How the simulated cell reads an mRNA: the noiseless formulae behind every simulated phenotype.

The scanning model walks 5' to 3'. Each upstream AUG captures a part of the scanning ribosomes that grows with
its initiation context; what happens to the captured ones depends on where the upstream reading frame ends.
The coefficients of the ribosome load were fitted on 10,000 random 50-nt 5'UTRs of a polysome-profiling
reporter assay and explain about 0.85 of the variance of 10,000 others, so the simulator's causes are the
causes of a real assay.

References
----------
Kozak M. An analysis of 5'-noncoding sequences from 699 vertebrate messenger RNAs. Nucleic Acids Res.
1987;15:8125.

Sample PJ et al. Human 5'UTR design and variant effect prediction from a
massively parallel translation assay. Nat Biotechnol. 2019;37:803.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int8, UInt8

from helix_sae.errors import DataError
from helix_sae.mrna import codons
from helix_sae.mrna.encoding import (
    OUTSIDE,
    FlatSequences,
    Motif,
    count_motif,
    encode,
    find_motif,
    gc_fraction,
    parse_motif,
    reverse_complement,
)
from helix_sae.mrna.tables import MIRNA_SEEDS, STOPS

AUG = parse_motif("AUG")
STOP_CODONS = tuple(parse_motif(codon) for codon in STOPS)

KOZAK_OFFSETS = (-6, -5, -4, -3, -2, -1, 3)
"""Context positions relative to the A of the AUG; the last one is the field's "+4"."""

_KOZAK_PERCENT = np.array(
    [
        [17, 19, 44, 20],
        [18, 39, 23, 20],
        [25, 53, 15, 7],
        [61, 2, 36, 1],
        [27, 49, 13, 11],
        [15, 55, 21, 9],
        [23, 16, 46, 15],
    ],
    dtype=np.float64,
)
"""Kozak 1987, percentages of A, C, G, U at each of ``KOZAK_OFFSETS``."""

KOZAK_WEIGHTS: Float[np.ndarray, "7 6"] = np.concatenate(
    [np.log2(_KOZAK_PERCENT / 100 / 0.25), np.zeros((len(KOZAK_OFFSETS), 2))], axis=1
)
"""Log-odds by context position and nucleotide code; N and positions outside the sequence score 0."""


class AugClass(IntEnum):
    """What an upstream AUG does to the main reading frame."""

    OVERLAPPING = 0
    """Out of frame with no stop before the main start: its ribosomes pass the start unseen."""
    CONTAINED = 1
    """A stop in its own frame before the main start: a contained uORF, after which some ribosomes
    reinitiate."""
    IN_FRAME = 2
    """In frame with no stop before the main start: an N-terminal extension of the protein."""


CLASS_NAMES = ("none", "overlapping", "contained", "in_frame")
"""Names of the classes of whole 5'UTRs, in the order of the codes of :func:`utr_class`."""

MAIN_START_INTERCEPT, MAIN_START_SLOPE = 2.0, 0.045
UAUG_INTERCEPT, UAUG_SLOPE = 1.95, 0.335
CONTAINED_LOSS = 0.77
IN_FRAME_YIELD = 0.876
MRL_BASE, MRL_GAIN = 3.39, 5.73
GC_INTERCEPT, GC_SLOPE = 5.49, -7.13
MRL_NOISE_SD = 0.66
"""Standard deviation of the reporter assay around its mechanism."""

ARE_NONAMER = parse_motif("UUAUUUAWW")
TE_ADAPTATION, TE_LENGTH, TE_NOISE_SD = 0.2, -0.1, 0.3
HALF_LIFE_BASE = 2.3
"""mu: ln hours, which puts the median simulated half-life near five hours."""
HALF_LIFE_STABILITY, HALF_LIFE_NONAMER, HALF_LIFE_MIRNA, HALF_LIFE_LENGTH = 0.35, -0.25, -0.15, -0.1
HALF_LIFE_NOISE_SD = 0.5
MAX_NONAMERS = 4
"""Nonamers beyond this many have no further effect."""

STABILITY_SCALE = (0.0039, 0.0072)
ADAPTATION_SCALE = (-0.2666, 0.0897)
"""Mean and standard deviation that make the two codon measures z-scores.

Fixed numbers (the moments of 50,000 transcripts simulated with the default parameters), so that a sequence's
phenotype does not depend on the batch in which it is evaluated.
"""


class UpstreamAugs(NamedTuple):
    """Every AUG wholly inside a 5'UTR, ordered by record and 5' to 3'.

    Attributes
    ----------
    record : (n_augs,) int64
        Index of the sequence.
    position : (n_augs,) int64
        0-based position of the A within its sequence.
    kind : (n_augs,) int8
        An :class:`AugClass`.
    stop : (n_augs,) int64
        Position of the first in-frame stop codon that ends before the main start, -1 where there is none.
    kozak : (n_augs,) float64
        Context score, :func:`kozak_score`.
    """

    record: Int[np.ndarray, " n_augs"]
    position: Int[np.ndarray, " n_augs"]
    kind: Int8[np.ndarray, " n_augs"]
    stop: Int[np.ndarray, " n_augs"]
    kozak: Float[np.ndarray, " n_augs"]


class Scanning(NamedTuple):
    """What the scanning model makes of each sequence.

    Attributes
    ----------
    load : (n,) float64
        L, in (0, 1): expected initiations that yield the main protein per scanning ribosome.
    accessibility : (n,) float64
        S, in (0, 1): the logistic effect of the 5'UTR's GC content.
    """

    load: Float[np.ndarray, " n"]
    accessibility: Float[np.ndarray, " n"]


def sigmoid(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Logistic function, ``1 / (1 + exp(-x))``."""
    return 1.0 / (1.0 + np.exp(-x))


def kozak_score(
    flat: FlatSequences, record: Int[np.ndarray, " n"], position: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Score the initiation context of the start codons at given positions.

    Parameters
    ----------
    flat : FlatSequences
        Encoded sequences.
    record, position : (n,) int
        Sequence and 0-based position of each start codon's first nucleotide. The position may equal the
        length of the sequence (a bare 5'UTR); what lies outside the sequence contributes 0.

    Returns
    -------
    (n,) float64
        Sum over positions -6..-1 and +4 of ``log2(f / 0.25)``, in bits; about -17 to +8.
    """
    lengths = flat.lengths[record]
    first = flat.offsets[:-1][record]
    score = np.zeros(len(record))
    padded = np.append(flat.codes, np.uint8(OUTSIDE))
    for row, offset in zip(KOZAK_WEIGHTS, KOZAK_OFFSETS, strict=True):
        at = position + offset
        inside = (at >= 0) & (at < lengths)
        score += row[padded[np.where(inside, first + at, len(flat.codes))]]
    return score


def upstream_augs(flat: FlatSequences, cds_start: Int[np.ndarray, " n"]) -> UpstreamAugs:
    """Find and classify every upstream AUG.

    An upstream AUG lies wholly before ``cds_start``; so does the stop codon that makes it a contained uORF.
    """
    hits = find_motif(flat, AUG)
    record = np.searchsorted(flat.offsets, hits, side="right") - 1
    position = hits - flat.offsets[record]
    upstream = position + 3 <= cds_start[record]
    record, position = record[upstream], position[upstream]
    stop = first_stop_in_frame(flat, cds_start, record, position)
    in_frame = (cds_start[record] - position) % 3 == 0
    kind = np.where(in_frame, AugClass.IN_FRAME, AugClass.OVERLAPPING)
    kind = np.where(stop >= 0, AugClass.CONTAINED, kind).astype(np.int8)
    return UpstreamAugs(record, position, kind, stop, kozak_score(flat, record, position))


def first_stop_in_frame(
    flat: FlatSequences,
    limit: Int[np.ndarray, " n"],
    record: Int[np.ndarray, " n_augs"],
    position: Int[np.ndarray, " n_augs"],
) -> Int[np.ndarray, " n_augs"]:
    """Position of the first stop codon in frame with each AUG, ending by its record's ``limit``, or -1."""
    stops = np.sort(np.concatenate([find_motif(flat, codon) for codon in STOP_CODONS]))
    stop_record = np.searchsorted(flat.offsets, stops, side="right") - 1
    stop_position = stops - flat.offsets[stop_record]
    kept = stop_position + 3 <= limit[stop_record]
    stop_record, stop_position = stop_record[kept], stop_position[kept]
    # One sorted key per (record, frame, position): an AUG's next stop is the next key of its record and
    # frame.
    width = int(flat.lengths.max(initial=0)) + 1
    stop_key = np.sort((stop_record * 3 + stop_position % 3) * width + stop_position)
    lane = record * 3 + position % 3
    nearest = np.searchsorted(stop_key, lane * width + position)
    found = np.append(stop_key, -1)[nearest]
    return np.where(found // width == lane, found % width, -1)


def scan(flat: FlatSequences, cds_start: Int[np.ndarray, " n"]) -> Scanning:
    """Run the scanning model on encoded sequences; see :class:`Scanning`."""
    n = len(flat.offsets) - 1
    augs = upstream_augs(flat, cds_start)
    p = sigmoid(UAUG_INTERCEPT + UAUG_SLOPE * augs.kozak)
    lost = np.where(augs.kind == AugClass.CONTAINED, CONTAINED_LOSS * p, p)
    gained = np.where(augs.kind == AugClass.IN_FRAME, IN_FRAME_YIELD * p, 0.0)
    load, reach = np.zeros(n), np.ones(n)
    # All first AUGs at once, then all second ones, and so on: as many steps as the richest 5'UTR has AUGs,
    # and a result that does not depend on the rest of the batch, to the last bit.
    rank = np.arange(len(augs.record)) - np.searchsorted(augs.record, augs.record, side="left")
    for step in range(int(rank.max(initial=-1)) + 1):
        at = np.flatnonzero(rank == step)
        record = augs.record[at]
        load[record] += gained[at] * reach[record]
        reach[record] *= 1 - lost[at]
    main = kozak_score(flat, np.arange(n), cds_start)
    load += reach * sigmoid(MAIN_START_INTERCEPT + MAIN_START_SLOPE * main)
    # An empty 5'UTR has no structure to unwind: GC 0.
    gc = np.nan_to_num(gc_fraction(flat, np.zeros(n, dtype=np.int64), cds_start), nan=0.0)
    return Scanning(load, sigmoid(GC_INTERCEPT + GC_SLOPE * gc))


def mean_ribosome_load(sequences: Sequence[str], cds_start: Sequence[int]) -> Float[np.ndarray, " n"]:
    """Noiseless mean ribosome load of each sequence.

    Parameters
    ----------
    sequences : sequence of str
        RNA (or DNA) sequences: 5'UTR and whatever follows of the coding sequence.
    cds_start : sequence of int
        0-based position of the main start codon, ``0 <= cds_start <= len(sequence)``.

    Returns
    -------
    (n,) float64
        Ribosomes per mRNA, between 3.39 and 9.12; a measurement adds ``N(0, MRL_NOISE_SD)``.

    Raises
    ------
    DataError
        When the two arguments differ in length or a start lies outside its sequence.
    """
    flat = encode(sequences)
    scanning = scan(flat, check_starts(flat, cds_start))
    return MRL_BASE + MRL_GAIN * scanning.load * scanning.accessibility


def utr_class(sequences: Sequence[str], cds_start: Sequence[int]) -> UInt8[np.ndarray, " n"]:
    """Class of each 5'UTR by its upstream AUGs, as an index into ``CLASS_NAMES``.

    A 5'UTR with AUGs of several classes takes the most disruptive one: overlapping, then contained, then in
    frame.
    """
    flat = encode(sequences)
    augs = upstream_augs(flat, check_starts(flat, cds_start))
    worst = np.full(len(flat.offsets) - 1, len(AugClass), dtype=np.int64)
    np.minimum.at(worst, augs.record, augs.kind.astype(np.int64))
    return ((worst + 1) % len(CLASS_NAMES)).astype(np.uint8)


def translation_efficiency(
    sequences: Sequence[str], cds_start: Sequence[int], cds_end: Sequence[int]
) -> Float[np.ndarray, " n"]:
    """Noiseless ln translation efficiency of whole transcripts; see :func:`phenotypes`."""
    return phenotypes(sequences, cds_start, cds_end).te


def half_life(
    sequences: Sequence[str],
    cds_start: Sequence[int],
    cds_end: Sequence[int],
    mirna_seeds: Mapping[str, str] = MIRNA_SEEDS,
) -> Float[np.ndarray, " n"]:
    """Noiseless ln half-life in hours of whole transcripts; see :func:`phenotypes`."""
    return phenotypes(sequences, cds_start, cds_end, mirna_seeds).half_life


class Phenotypes(NamedTuple):
    """Noiseless phenotypes of a batch.

    Attributes
    ----------
    mrl : (n,) float64
        Mean ribosome load, ribosomes per mRNA.
    te : (n,) float64
        ln translation efficiency, ``ln(L S) + 0.2 z(codon adaptation) - 0.1 ln(CDS kb)``.
    half_life : (n,) float64
        ln half-life in hours,
        ``mu + 0.35 z(mean CSC) - 0.25 min(nonamers, 4) - 0.15 miR 8mers - 0.1 ln(3'UTR nt)``.

    ``te`` and ``half_life`` are NaN where the coding sequence's end is not known.
    """

    mrl: Float[np.ndarray, " n"]
    te: Float[np.ndarray, " n"]
    half_life: Float[np.ndarray, " n"]


def phenotypes(
    sequences: Sequence[str],
    cds_start: Sequence[int],
    cds_end: Sequence[int],
    mirna_seeds: Mapping[str, str] = MIRNA_SEEDS,
) -> Phenotypes:
    """Evaluate every mechanism on a batch.

    Parameters
    ----------
    sequences : sequence of str
        RNA (or DNA) sequences.
    cds_start, cds_end : sequence of int
        0-based half-open coding sequence, stop codon included; a negative end says that it is not in the
        sequence.
    mirna_seeds : mapping of str to str
        Seeds (nucleotides 2 to 8) of the miRNAs that destabilise.
    """
    flat = encode(sequences)
    starts = check_starts(flat, cds_start)
    ends = np.asarray(cds_end, dtype=np.int64)
    n = len(starts)
    scanning = scan(flat, starts)
    track = codons.codon_track(flat, starts, ends)
    return Phenotypes(
        mrl=MRL_BASE + MRL_GAIN * scanning.load * scanning.accessibility,
        te=_log_te(scanning, codons.log_adaptation(track, n), np.where(ends >= 0, ends - starts, -1)),
        half_life=_log_half_life(flat, ends, codons.mean_stability(track, n), mirna_seeds),
    )


def _log_te(
    scanning: Scanning, adaptation: Float[np.ndarray, " n"], cds_length: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    mean, sd = ADAPTATION_SCALE
    kilobases = np.where(cds_length > 0, cds_length, np.nan) / 1000
    initiation = np.log(scanning.load * scanning.accessibility)
    return initiation + TE_ADAPTATION * (adaptation - mean) / sd + TE_LENGTH * np.log(kilobases)


def _log_half_life(
    flat: FlatSequences,
    cds_end: Int[np.ndarray, " n"],
    stability: Float[np.ndarray, " n"],
    mirna_seeds: Mapping[str, str],
) -> Float[np.ndarray, " n"]:
    mean, sd = STABILITY_SCALE
    nonamers = count_motif(flat, ARE_NONAMER, cds_end, flat.lengths)
    sites = sum(
        (count_motif(flat, mirna_site(seed), cds_end, flat.lengths) for seed in mirna_seeds.values()),
        np.zeros(len(cds_end), dtype=np.int64),
    )
    # A transcript without a 3'UTR counts as having one nucleotide of it.
    length = np.where(cds_end >= 0, np.maximum(flat.lengths - cds_end, 1), np.nan)
    return (
        HALF_LIFE_BASE
        + HALF_LIFE_STABILITY * (stability - mean) / sd
        + HALF_LIFE_NONAMER * np.minimum(nonamers, MAX_NONAMERS)
        + HALF_LIFE_MIRNA * sites
        + HALF_LIFE_LENGTH * np.log(length)
    )


def mirna_site(seed: str) -> Motif:
    """Return a miRNA's 8mer site: the reverse complement of its seed (nucleotides 2 to 8), then A."""
    if len(seed) != 7:
        raise DataError(
            f"miRNA seed {seed!r} has {len(seed)} letters; give nucleotides 2 to 8, seven letters of ACGU"
        )
    return parse_motif(reverse_complement(seed.upper().replace("T", "U")) + "A")


def check_starts(flat: FlatSequences, cds_start: Sequence[int]) -> Int[np.ndarray, " n"]:
    """Return ``cds_start`` as int64 after checking that every start lies in its sequence (the end included)."""
    starts = np.asarray(cds_start, dtype=np.int64)
    if starts.shape != (len(flat.offsets) - 1,):
        raise DataError(
            f"{len(flat.offsets) - 1} sequences but {starts.size} start positions; give one start per"
            " sequence"
        )
    outside = np.flatnonzero((starts < 0) | (starts > flat.lengths))
    if outside.size:
        first = int(outside[0])
        raise DataError(
            f"record {first}: cds_start {int(starts[first])} lies outside its sequence of "
            f"{int(flat.lengths[first])} nt; positions are 0-based"
        )
    return starts
