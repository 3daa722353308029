"""Nucleotide-level concepts: what biology knows about each position of an mRNA.

Every concept is a set of runs, half-open intervals of nucleotides; a position has the concept when a run
covers it. Two modes of recall go with them: per ``nucleotide`` for regions and codons, per ``instance`` for
elements, of which one firing position anywhere is enough.

References
----------
Kozak M. An analysis of 5'-noncoding sequences from 699 vertebrate messenger RNAs. Nucleic Acids Res.
1987;15:8125.

Forrest ME et al. Codon and amino acid content are associated with mRNA
stability in mammalian cells. PLoS ONE. 2020;15:e0228730.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int
from scipy.sparse import csr_array

from helix_sae.mrna import codons, structure
from helix_sae.mrna.encoding import LETTERS, A, C, G, U, decode, find_motif, parse_motif
from helix_sae.mrna.mechanism import ARE_NONAMER, STOP_CODONS, mirna_site
from helix_sae.mrna.motifs import (
    RegionName,
    UserMotif,
    check_intervals,
    check_names,
    find_in_region,
    region_span,
)
from helix_sae.mrna.regions import Regions, regions_of
from helix_sae.mrna.tables import MIRNA_SEEDS, RELATIVE_USAGE, STABILITY, STOPS
from helix_sae.mrna.uorfs import known_upstream_augs, upstream_orfs

RecallMode = Literal["nucleotide", "instance"]

CAP_LENGTH = 20
GC_WINDOW, GC_HIGH, GC_LOW = 31, 0.7, 0.3
RARE_USAGE = 0.15
PAS_REACH = 50
START_REACH = 15
_G4 = re.compile(r"G{3,}(?:[ACGUN]{1,7}?G{3,}){3}")
_TOP = re.compile(r"C[CU]{4,15}")


class Runs(NamedTuple):
    """Half-open intervals on the flat axis of a batch, by start; none crosses the border of a sequence."""

    start: Int[np.ndarray, " n_runs"]
    end: Int[np.ndarray, " n_runs"]


class NucleotideAnnotations(NamedTuple):
    """Concepts of every nucleotide of a table.

    Attributes
    ----------
    sequence_id : (n_sequences,) str
        As in the mRNA table.
    offsets : (n_sequences + 1,) int64
        Sequence ``i`` has the nucleotides ``offsets[i]:offsets[i + 1]``.
    concepts : tuple of str
        Names of the columns of ``labels``.
    recall : tuple of str
        Per concept ``nucleotide`` or ``instance``.
    labels : csr_array of bool (n_nucleotides, n_concepts)
        Whether a nucleotide has a concept.
    known : (n_sequences, n_concepts) bool
        False where a concept cannot be evaluated (a coding region that is not known): these nucleotides are
        neither positives nor negatives.
    run_concept, run_start, run_end : (n_runs,) int32, int64, int64
        Instances of the ``instance`` concepts as half-open intervals on the nucleotide axis, ordered by
        concept and start. Instances of one concept may overlap.
    """

    sequence_id: np.ndarray
    offsets: Int[np.ndarray, " n_sequences_plus_1"]
    concepts: tuple[str, ...]
    recall: tuple[RecallMode, ...]
    labels: csr_array
    known: Bool[np.ndarray, "n_sequences n_concepts"]
    run_concept: Int[np.ndarray, " n_runs"]
    run_start: Int[np.ndarray, " n_runs"]
    run_end: Int[np.ndarray, " n_runs"]

    def column(self, concept: str) -> Bool[np.ndarray, " n_nucleotides"]:
        """Labels of one concept, dense."""
        chosen = np.zeros(len(self.concepts), dtype=np.bool_)
        chosen[self.concepts.index(concept)] = True
        return np.asarray(self.labels @ chosen, dtype=np.bool_)

    def instances(self, concept: str) -> Runs:
        """Instances of one concept."""
        chosen = self.run_concept == self.concepts.index(concept)
        return Runs(self.run_start[chosen], self.run_end[chosen])


class _Concept(NamedTuple):
    runs: Callable[[Regions], Runs]
    recall: RecallMode
    region: RegionName
    """Region that has to be known for the concept to be defined."""


def annotate(
    sequence: str,
    cds_start: int | None,
    cds_end: int | None,
    *,
    mirna_seeds: Mapping[str, str] = MIRNA_SEEDS,
    motifs: Sequence[UserMotif] = (),
    with_structure: bool = False,
) -> dict[str, Bool[np.ndarray, " length"]]:
    """Annotate one sequence; see :func:`annotate_table`.

    Returns
    -------
    dict of str to (length,) bool
        A mask per concept. A concept that is not known (no coding region) is left out.
    """
    table = pd.DataFrame(
        {
            "sequence_id": ["sequence"],
            "sequence": [sequence],
            "cds_start": pd.array([cds_start], dtype="Int64"),
            "cds_end": pd.array([cds_end], dtype="Int64"),
        }
    )
    found = annotate_table(table, mirna_seeds=mirna_seeds, motifs=motifs, with_structure=with_structure)
    return {
        name: found.column(name) for name, known in zip(found.concepts, found.known[0], strict=True) if known
    }


def annotate_table(
    table: pd.DataFrame,
    *,
    mirna_seeds: Mapping[str, str] = MIRNA_SEEDS,
    motifs: Sequence[UserMotif] = (),
    intervals: pd.DataFrame | None = None,
    with_structure: bool = False,
) -> NucleotideAnnotations:
    """Annotate every nucleotide of an mRNA table with every concept.

    Parameters
    ----------
    table : DataFrame
        An mRNA table: ``sequence_id``, ``sequence``, ``cds_start``, ``cds_end``.
    mirna_seeds : mapping of str to str
        Seeds (nucleotides 2 to 8) whose 8mer sites make the concept ``miR_8mer``.
    motifs : sequence of UserMotif
        Concepts of the user's own, with recall per instance.
    intervals : DataFrame, optional
        BED-like table of further concepts, :func:`helix_sae.mrna.motifs.check_intervals`; recall per
        instance.
    with_structure : bool
        Add ``paired``, ``hairpin_loop`` and ``accessible_start`` from ViennaRNA.

    Returns
    -------
    NucleotideAnnotations

    Raises
    ------
    DataError
        When a sequence, coordinate, interval or concept name is not valid.
    ConfigurationError
        When structure is asked for and ViennaRNA is not installed.
    """
    regions = regions_of(table)
    concepts = dict(_CONCEPTS)
    concepts["miR_8mer"] = _Concept(_mirna_runs(mirna_seeds), "instance", "utr3")
    if with_structure:
        concepts |= _structure_concepts(regions)
    checked = None if intervals is None else check_intervals(intervals, table)
    names: list[str] = [] if checked is None else sorted(set(checked["name"]))
    check_names(motifs, names, tuple(concepts))
    concepts |= {item.name: _Concept(_user_runs(item), "instance", item.region) for item in motifs}
    if checked is not None:
        concepts |= {name: _Concept(_interval_runs(checked, name), "instance", "any") for name in names}
    return _assemble(table["sequence_id"].to_numpy(dtype=object), regions, concepts)


def _assemble(
    sequence_id: np.ndarray, regions: Regions, concepts: Mapping[str, _Concept]
) -> NucleotideAnnotations:
    n = len(regions.flat.codes)
    covered: list[Int[np.ndarray, " n_covered"]] = []
    instances: list[tuple[int, Runs]] = []
    for index, concept in enumerate(concepts.values()):
        runs = concept.runs(regions)
        covered.append(np.flatnonzero(coverage(runs, n)))
        if concept.recall == "instance":
            instances.append((index, runs))
    column = np.repeat(np.arange(len(covered)), [len(rows) for rows in covered])
    row = np.concatenate(covered)
    labels = csr_array((np.ones(len(row), dtype=np.bool_), (row, column)), shape=(n, len(covered)))
    return NucleotideAnnotations(
        sequence_id=sequence_id,
        offsets=regions.flat.offsets,
        concepts=tuple(concepts),
        recall=tuple(concept.recall for concept in concepts.values()),
        labels=labels,
        known=np.stack([region_span(regions, concept.region)[2] for concept in concepts.values()], axis=1),
        run_concept=np.repeat([i for i, _ in instances], [len(runs.start) for _, runs in instances]).astype(
            np.int32
        ),
        run_start=np.concatenate([runs.start for _, runs in instances]),
        run_end=np.concatenate([runs.end for _, runs in instances]),
    )


def coverage(runs: Runs, n: int) -> Bool[np.ndarray, " n"]:
    """Mark the positions that at least one run covers."""
    steps = np.bincount(runs.start, minlength=n + 1) - np.bincount(runs.end, minlength=n + 1)
    return np.cumsum(steps[:n]) > 0


# ---- building runs


def _spans(
    regions: Regions,
    record: Int[np.ndarray, " n_runs"],
    start: Int[np.ndarray, " n_runs"],
    end: Int[np.ndarray, " n_runs"],
) -> Runs:
    """Make runs from positions within sequences, cut to their sequence; empty ones are dropped."""
    first = regions.flat.offsets[record]
    start = np.maximum(start, 0)
    end = np.minimum(end, regions.flat.lengths[record])
    kept = start < end
    begin, stop = (first + start)[kept], (first + end)[kept]
    order = np.lexsort((stop, begin))
    return Runs(begin[order], stop[order])


def _words(hits: Int[np.ndarray, " n_hits"], length: int) -> Runs:
    return Runs(hits, hits + length)


def _merged(*several: Runs) -> Runs:
    start = np.concatenate([runs.start for runs in several]) if several else np.empty(0, dtype=np.int64)
    end = np.concatenate([runs.end for runs in several]) if several else np.empty(0, dtype=np.int64)
    order = np.lexsort((end, start))
    return Runs(start[order], end[order])


def _maximal(regions: Regions, mask: Bool[np.ndarray, " n_nucleotides"], shortest: int = 1) -> Runs:
    """Maximal runs of a mask within sequences, at least ``shortest`` long."""
    border = np.zeros(len(mask) + 1, dtype=np.bool_)
    border[regions.flat.offsets] = True
    previous = np.concatenate(([False], mask[:-1])) & ~border[:-1]
    following = np.concatenate((mask[1:], [False])) & ~border[1:]
    start, end = np.flatnonzero(mask & ~previous), np.flatnonzero(mask & ~following) + 1
    long = end - start >= shortest
    return Runs(start[long], end[long])


# ---- regions, frames, starts and stops


def _region_runs(region: RegionName) -> Callable[[Regions], Runs]:
    def runs(regions: Regions) -> Runs:
        low, high, known = region_span(regions, region)
        return _spans(regions, np.flatnonzero(known), low[known], high[known])

    return runs


def _codon_position(phase: int) -> Callable[[Regions], Runs]:
    def runs(regions: Regions) -> Runs:
        record, position = regions.flat.record, regions.flat.position
        inside = (
            (position >= regions.start[record]) & (position < regions.end[record]) & regions.has_cds[record]
        )
        return _words(np.flatnonzero(inside & ((position - regions.start[record]) % 3 == phase)), 1)

    return runs


def _start_codon(regions: Regions) -> Runs:
    record = np.flatnonzero(regions.has_cds & (regions.start + 3 <= regions.end))
    return _spans(regions, record, regions.start[record], regions.start[record] + 3)


def _stop_codon(codon: str) -> Callable[[Regions], Runs]:
    def runs(regions: Regions) -> Runs:
        hits = find_motif(regions.flat, STOP_CODONS[STOPS.index(codon)])
        record = np.searchsorted(regions.flat.offsets, hits, side="right") - 1
        at_end = regions.has_end[record] & (hits - regions.flat.offsets[record] + 3 == regions.end[record])
        return _words(hits[at_end], 3)

    return runs


def _kozak_window(regions: Regions) -> Runs:
    record = np.flatnonzero(regions.has_cds)
    return _spans(regions, record, regions.start[record] - 6, regions.start[record] + 4)


def _kozak_strong(regions: Regions) -> Runs:
    record = np.flatnonzero(
        regions.has_cds & (regions.start >= 3) & (regions.start + 4 <= regions.flat.lengths)
    )
    start = regions.flat.offsets[record] + regions.start[record]
    strong = np.isin(regions.flat.codes[start - 3], (A, G)) & (regions.flat.codes[start + 3] == G)
    record = record[strong]
    return _spans(regions, record, regions.start[record] - 6, regions.start[record] + 4)


# ---- upstream elements


def _uaug(in_frame: bool) -> Callable[[Regions], Runs]:
    def runs(regions: Regions) -> Runs:
        augs = known_upstream_augs(regions)
        chosen = ((regions.start[augs.record] - augs.position) % 3 == 0) == in_frame
        return _words(regions.flat.offsets[augs.record[chosen]] + augs.position[chosen], 3)

    return runs


def _uorf(contained: bool) -> Callable[[Regions], Runs]:
    def runs(regions: Regions) -> Runs:
        orfs = upstream_orfs(regions)
        chosen = orfs.contained == contained
        return _spans(regions, orfs.record[chosen], orfs.start[chosen], orfs.end[chosen])

    return runs


def _near_cognate(regions: Regions) -> Runs:
    starts: list[Int[np.ndarray, " n_hits"]] = []
    for codon in ("CUG", "GUG", "UUG", "ACG"):
        # A purine at -3 is part of the pattern, and so has to lie in the 5'UTR as well.
        hits = find_in_region(regions, parse_motif("RNN" + codon), "utr5")
        starts.append(hits + 3)
    return _merged(*(_words(hits, 3) for hits in starts))


def _cap(regions: Regions) -> Runs:
    record = np.arange(regions.n)
    return _spans(regions, record, np.zeros(regions.n, dtype=np.int64), np.full(regions.n, CAP_LENGTH))


def _top(regions: Regions) -> Runs:
    matches = [_TOP.match(sequence) for sequence in decode(regions.flat)]
    record = np.array([i for i, match in enumerate(matches) if match], dtype=np.int64)
    end = np.array([match.end() for match in matches if match], dtype=np.int64)
    return _spans(regions, record, np.zeros(len(record), dtype=np.int64), end)


# ---- codons


def _codons(chosen: Bool[np.ndarray, " 64"]) -> Callable[[Regions], Runs]:
    def runs(regions: Regions) -> Runs:
        start = np.where(regions.has_cds, regions.start, -1)
        track = codons.codon_track(regions.flat, start, np.where(regions.has_cds, regions.end, -1))
        return _words(track.start[np.append(chosen, False)[track.codon]], 3)

    return runs


def _third_by_stability(top: bool) -> Bool[np.ndarray, " 64"]:
    """Choose the 20 sense codons (a third of 61) with the highest or lowest stability coefficients."""
    order = np.argsort(STABILITY, kind="stable")[: int((~np.isnan(STABILITY)).sum())]
    third = len(order) // 3
    chosen = np.zeros(len(STABILITY), dtype=np.bool_)
    chosen[order[-third:] if top else order[:third]] = True
    return chosen


def _rare() -> Bool[np.ndarray, " 64"]:
    return (RELATIVE_USAGE < RARE_USAGE) & ~np.isnan(STABILITY)


# ---- composition and motifs


def _cpg(regions: Regions) -> Runs:
    return _words(find_motif(regions.flat, parse_motif("CG")), 2)


def _homopolymer(bases: str, shortest: int, terminal: bool = True) -> Callable[[Regions], Runs]:
    def runs(regions: Regions) -> Runs:
        found = _merged(
            *(_maximal(regions, regions.flat.codes == LETTERS.index(base), shortest) for base in bases)
        )
        if terminal:
            return found
        inner = ~np.isin(found.end, regions.flat.offsets)
        return Runs(found.start[inner], found.end[inner])

    return runs


def _g4(regions: Regions) -> Runs:
    """Leftmost non-overlapping matches of four G-tracts of 3 or more with loops of 1 to 7."""
    spans = [
        (first + match.start(), first + match.end())
        for first, sequence in zip(regions.flat.offsets[:-1].tolist(), decode(regions.flat), strict=True)
        for match in _G4.finditer(sequence)
    ]
    table = np.array(spans, dtype=np.int64).reshape(-1, 2)
    return Runs(table[:, 0], table[:, 1])


def _in_utr3(pattern: str) -> Callable[[Regions], Runs]:
    motif = parse_motif(pattern)

    def runs(regions: Regions) -> Runs:
        return _words(find_in_region(regions, motif, "utr3"), len(motif))

    return runs


def _are_nonamer(regions: Regions) -> Runs:
    return _words(find_in_region(regions, ARE_NONAMER, "utr3"), len(ARE_NONAMER))


def _pas(regions: Regions) -> Runs:
    """AAUAAA or AUUAAA wholly inside the last 50 nucleotides of the 3'UTR."""
    hits = find_in_region(regions, parse_motif("AWUAAA"), "utr3")
    end = regions.flat.offsets[np.searchsorted(regions.flat.offsets, hits, side="right")]
    return _words(hits[end - hits <= PAS_REACH], 6)


def _mirna_runs(seeds: Mapping[str, str]) -> Callable[[Regions], Runs]:
    sites = {mirna_site(seed) for seed in seeds.values()}

    def runs(regions: Regions) -> Runs:
        return _merged(*(_words(find_in_region(regions, site, "utr3"), len(site)) for site in sites))

    return runs


def _gc_windows(strong: bool) -> Callable[[Regions], Runs]:
    """Mark runs of nucleotides covered by a 31-nt window with GC >= 0.7 (or <= 0.3: at least 0.7 A and U)."""
    wanted = np.isin(np.arange(5), (C, G) if strong else (A, U))
    needed = int(np.ceil(GC_WINDOW * (GC_HIGH if strong else 1 - GC_LOW) - 1e-9))

    def runs(regions: Regions) -> Runs:
        total = np.concatenate(([0], np.cumsum(wanted[regions.flat.codes])))
        record = regions.flat.record
        fits = regions.flat.position + GC_WINDOW <= regions.flat.lengths[record]
        start = np.flatnonzero(fits)
        start = start[total[start + GC_WINDOW] - total[start] >= needed]
        return _maximal(regions, coverage(_words(start, GC_WINDOW), len(record)))

    return runs


def _user_runs(item: UserMotif) -> Callable[[Regions], Runs]:
    def runs(regions: Regions) -> Runs:
        return _words(find_in_region(regions, item.motif, item.region), len(item.motif))

    return runs


def _interval_runs(checked: pd.DataFrame, name: str) -> Callable[[Regions], Runs]:
    chosen = checked[checked["name"] == name]

    def runs(regions: Regions) -> Runs:
        return _spans(
            regions,
            np.asarray(chosen["row"], dtype=np.int64),
            np.asarray(chosen["start"], dtype=np.int64),
            np.asarray(chosen["end"], dtype=np.int64),
        )

    return runs


# ---- structure


def _structure_concepts(regions: Regions) -> dict[str, _Concept]:
    """Concepts of the predicted minimum free energy structures.

    ``accessible_start`` are the unpaired nucleotides within 15 of the main start codon's first nucleotide.
    """
    dots = "".join(item.dot_bracket for item in structure.fold(decode(regions.flat)))
    symbols = np.frombuffer(dots.encode("ascii"), dtype=np.uint8)
    unpaired = symbols == ord(".")
    loops = [(match.start() + 1, match.end() - 1) for match in re.finditer(r"\(\.+\)", dots)]
    loop_table = np.array(loops, dtype=np.int64).reshape(-1, 2)
    record, position = regions.flat.record, regions.flat.position
    distance = position - regions.start[record]
    near = regions.has_cds[record] & (distance >= -START_REACH) & (distance < START_REACH)
    return {
        "paired": _Concept(lambda _: _maximal(regions, ~unpaired), "nucleotide", "any"),
        "hairpin_loop": _Concept(lambda _: Runs(loop_table[:, 0], loop_table[:, 1]), "instance", "any"),
        "accessible_start": _Concept(lambda _: _maximal(regions, unpaired & near), "nucleotide", "utr5"),
    }


_CONCEPTS: Mapping[str, _Concept] = {
    "utr5": _Concept(_region_runs("utr5"), "nucleotide", "utr5"),
    "cds": _Concept(_region_runs("cds"), "nucleotide", "cds"),
    "utr3": _Concept(_region_runs("utr3"), "nucleotide", "utr3"),
    **{f"codon_pos_{phase + 1}": _Concept(_codon_position(phase), "nucleotide", "cds") for phase in range(3)},
    "start_codon": _Concept(_start_codon, "instance", "cds"),
    **{f"stop_{codon}": _Concept(_stop_codon(codon), "instance", "cds") for codon in STOPS},
    "kozak_window": _Concept(_kozak_window, "instance", "cds"),
    "kozak_strong": _Concept(_kozak_strong, "instance", "cds"),
    "uAUG_out_of_frame": _Concept(_uaug(in_frame=False), "instance", "utr5"),
    "uAUG_in_frame": _Concept(_uaug(in_frame=True), "instance", "utr5"),
    "uORF_contained": _Concept(_uorf(contained=True), "instance", "utr5"),
    "uORF_overlapping": _Concept(_uorf(contained=False), "instance", "utr5"),
    "near_cognate": _Concept(_near_cognate, "instance", "utr5"),
    "cap_region": _Concept(_cap, "instance", "any"),
    "TOP": _Concept(_top, "instance", "any"),
    "codon_optimal": _Concept(_codons(_third_by_stability(top=True)), "nucleotide", "cds"),
    "codon_nonoptimal": _Concept(_codons(_third_by_stability(top=False)), "nucleotide", "cds"),
    "rare_codon": _Concept(_codons(_rare()), "nucleotide", "cds"),
    "CpG": _Concept(_cpg, "nucleotide", "any"),
    "homopolymer_6": _Concept(_homopolymer("ACGU", 6), "instance", "any"),
    "polyU_7": _Concept(_homopolymer("U", 7), "instance", "any"),
    "polyA_8": _Concept(_homopolymer("A", 8, terminal=False), "instance", "any"),
    "G4_like": _Concept(_g4, "instance", "any"),
    "ARE_pentamer": _Concept(_in_utr3("AUUUA"), "instance", "utr3"),
    "ARE_nonamer": _Concept(_are_nonamer, "instance", "utr3"),
    "PUM": _Concept(_in_utr3("UGUANAUA"), "instance", "utr3"),
    "PAS": _Concept(_pas, "instance", "utr3"),
    "gc_high": _Concept(_gc_windows(strong=True), "instance", "any"),
    "gc_low": _Concept(_gc_windows(strong=False), "instance", "any"),
}
