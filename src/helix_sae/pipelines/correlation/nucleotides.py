"""The nucleotides on which features are matched with concepts, and what is known about them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Int

if TYPE_CHECKING:
    from helix_sae.mrna.annotations import NucleotideAnnotations
    from helix_sae.sae.codes import SiteCodes
    from helix_sae.statistics.concepts import Concepts
else:
    # Too heavy to import for their names alone.
    NucleotideAnnotations = Concepts = SiteCodes = Any

REGIONS = ("utr5", "cds", "utr3")


class Nucleotides(NamedTuple):
    """Rows of the codes and of the annotations that belong together.

    Attributes
    ----------
    sequence_id : list of str
        Sequences taken, in the order of the codes.
    offsets : int64 (n_sequences + 1,)
        Where each sequence's nucleotides start.
    token_rows : int64 (n_nucleotides,)
        Row of the codes; rising.
    token : int64 (n_nucleotides,)
        Token within the sequence.
    nucleotide : int64 (n_nucleotides,)
        Position in the sequence.
    annotation_rows : int64 (n_nucleotides,)
        Row of the annotations' labels.
    annotation_sequences : int64 (n_sequences,)
        Row of the annotations' ``known``.
    since_marker : int64 (n_nucleotides,)
        Tokens since the last codon marker in the sequence, the marker itself counted as 0; -1 before the
        first.
    n_markers : int64 (n_nucleotides,)
        Codon markers before the nucleotide in its sequence.
    """

    sequence_id: list[str]
    offsets: Int[np.ndarray, " n_sequences_plus_1"]
    token_rows: Int[np.ndarray, " n_nucleotides"]
    token: Int[np.ndarray, " n_nucleotides"]
    nucleotide: Int[np.ndarray, " n_nucleotides"]
    annotation_rows: Int[np.ndarray, " n_nucleotides"]
    annotation_sequences: Int[np.ndarray, " n_sequences"]
    since_marker: Int[np.ndarray, " n_nucleotides"]
    n_markers: Int[np.ndarray, " n_nucleotides"]


def choose_nucleotides(codes: SiteCodes, annotations: NucleotideAnnotations, limit: int) -> Nucleotides:
    """Whole sequences in the order of a hash of their ids, up to the limit; then back in the codes' order."""
    ids, first_row, is_nucleotide = list(codes.sequence_id), np.asarray(codes.offsets), codes.is_nucleotide
    number = {name: i for i, name in enumerate(annotations.sequence_id)}
    by_hash = sorted(range(len(ids)), key=lambda i: hashlib.sha256(ids[i].encode()).digest())
    taken, total = [], 0
    for i in by_hash:
        if total >= limit:
            break
        taken.append(i)
        total += int(is_nucleotide[first_row[i] : first_row[i + 1]].sum())
    taken.sort()
    tokens = [is_nucleotide[first_row[i] : first_row[i + 1]] for i in taken]
    token = [np.flatnonzero(kept) for kept in tokens]
    sequences = np.array([number[ids[i]] for i in taken], dtype=np.int64)
    first = np.asarray(annotations.offsets)[sequences]
    nucleotide = [np.arange(len(at)) for at in token]
    since, before = zip(*(_markers(kept) for kept in tokens), strict=True)
    return Nucleotides(
        [ids[i] for i in taken],
        np.concatenate([[0], np.cumsum([len(at) for at in token])]),
        np.concatenate([first_row[i] + at for i, at in zip(taken, token, strict=True)]),
        np.concatenate(token),
        np.concatenate(nucleotide),
        np.concatenate([start + at for start, at in zip(first, nucleotide, strict=True)]),
        sequences,
        np.concatenate(since),
        np.concatenate(before),
    )


def _markers(is_nucleotide: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each nucleotide token of a sequence: tokens since the last marker (-1: none yet), and markers before it."""
    at = np.arange(len(is_nucleotide))
    last = np.maximum.accumulate(np.where(is_nucleotide, -1, at))
    since = np.where(last >= 0, at - last, -1)
    return since[is_nucleotide], np.cumsum(~is_nucleotide)[is_nucleotide]


def regions_of(annotations: NucleotideAnnotations, chosen: Nucleotides) -> Int[np.ndarray, " n_nucleotides"]:
    """Region of each nucleotide: 1 to 3 for the 5'UTR, coding sequence and 3'UTR; 0 where it is not known.

    The null of a motif shifts its labels within the region: that a feature fires in the 3'UTR is not yet that
    it finds the elements in it.
    """
    region = np.zeros(len(chosen.annotation_rows), dtype=np.int64)
    for value, name in enumerate(REGIONS, start=1):
        region[annotations.column(name)[chosen.annotation_rows]] = value
    return region


def concepts_of(
    annotations: NucleotideAnnotations, chosen: Nucleotides, columns: Int[np.ndarray, " n_chosen"]
) -> Concepts:
    """Labels and instances of some concepts on the chosen nucleotides; instances may overlap."""
    from helix_sae.statistics.concept_matching import prepare_concepts

    return prepare_concepts(
        annotations.labels[chosen.annotation_rows][:, columns],
        [annotations.concepts[c] for c in columns],
        [annotations.recall[c] == "instance" for c in columns],
        chosen.offsets,
        runs=_runs(annotations, chosen, columns),
    )


def _runs(
    annotations: NucleotideAnnotations, chosen: Nucleotides, columns: Int[np.ndarray, " n_chosen"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The annotations' runs in rows of the chosen nucleotides; those with no nucleotide among them are left out.

    Chosen nucleotides of a sequence keep their order, so a run stays one.
    """
    order = np.argsort(chosen.annotation_rows)
    rows = chosen.annotation_rows[order]
    number = np.full(len(annotations.concepts), -1)
    number[columns] = np.arange(len(columns))
    wanted = number[annotations.run_concept] >= 0
    first = np.searchsorted(rows, annotations.run_start[wanted])
    last = np.searchsorted(rows, annotations.run_end[wanted]) - 1
    kept = first <= last
    start, end = order[first[kept]], order[last[kept]] + 1
    return number[annotations.run_concept[wanted][kept]], start, end
