"""Nucleotide-level labels in the form that matching needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from helix_sae.errors import DataError

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Instances(NamedTuple):
    """The occurrences of those concepts whose recall is counted per instance.

    Attributes
    ----------
    rows : int64 (n_members,)
        Nucleotides of one instance after the other. Instances may overlap.
    starts : int64 (n_instances + 1,)
        Where each instance starts in ``rows``.
    concept : int64 (n_instances,)
        Column of each instance's concept; rising.
    """

    rows: IntArray
    starts: IntArray
    concept: IntArray

    def of(self, concepts: IntArray) -> Instances:
        """Instances of some concepts, numbered by their position in ``concepts``."""
        number = np.full(int(max(self.concept.max(initial=-1), concepts.max(initial=-1))) + 1, -1)
        number[concepts] = np.arange(len(concepts))
        kept = np.flatnonzero(number[self.concept] >= 0)
        lengths = np.diff(self.starts)[kept]
        members = np.repeat(self.starts[kept], lengths) + _ramp(lengths)
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Instances(self.rows[members], starts, number[self.concept[kept]].astype(np.int64))


@dataclass(frozen=True)
class Concepts:
    """Labels ready for matching; made by :func:`prepare_concepts`.

    Attributes
    ----------
    names : tuple of str (n_concepts,)
    per_instance : bool (n_concepts,)
        Recall is counted per instance (else per nucleotide).
    labels : csr uint8 (n_nucleotides, n_concepts)
        1 where the concept holds.
    instances : Instances
    offsets : int64 (n_sequences + 1,)
        Where each sequence's nucleotides start.
    """

    names: tuple[str, ...]
    per_instance: BoolArray
    labels: Any
    instances: Instances
    offsets: IntArray

    @property
    def n_nucleotides(self) -> int:
        """Number of rows."""
        return int(self.labels.shape[0])

    def keep(self, columns: IntArray) -> Concepts:
        """Only some of the concepts."""
        return Concepts(
            tuple(self.names[c] for c in columns),
            self.per_instance[columns],
            sparse.csr_array(self.labels[:, columns]),
            self.instances.of(columns),
            self.offsets,
        )


def prepare_concepts(
    labels: Any,
    names: Sequence[str],
    per_instance: Sequence[bool],
    offsets: Any,
    instances: Any | None = None,
    runs: tuple[Any, Any, Any] | None = None,
) -> Concepts:
    """Bring labels and instances together.

    Parameters
    ----------
    labels : bool or uint8, dense or sparse, (n_nucleotides, n_concepts)
        Where each concept holds.
    names : sequence of str (n_concepts,)
    per_instance : sequence of bool (n_concepts,)
        True: recall per instance (D), False: recall per nucleotide (T).
    offsets : int (n_sequences + 1,)
        Where each sequence's nucleotides start.
    instances : int32, dense or sparse, (n_nucleotides, n_concepts), optional
        Instance ids, 0 for none; they need only be distinct within a sequence and concept.
    runs : (concept, start, end), int (n_instances,) each, optional
        Instances as half-open intervals of nucleotides, which may overlap; those of concepts with recall per
        nucleotide are left alone. With neither, every run of neighbouring labelled nucleotides of a sequence
        is one instance.

    Returns
    -------
    Concepts

    Raises
    ------
    DataError
        If shapes do not agree, or a labelled nucleotide of an instance concept belongs to no instance.
    """
    table = sparse.coo_array(labels)
    table.eliminate_zeros()
    n_rows, n_concepts = table.shape
    bounds = np.asarray(offsets, dtype=np.int64)
    if len(names) != n_concepts or len(per_instance) != n_concepts:
        raise DataError(
            f"{n_concepts} concept columns, but {len(names)} names and {len(per_instance)} modes."
        )
    if len(bounds) < 1 or bounds[0] != 0 or bounds[-1] != n_rows or (np.diff(bounds) < 0).any():
        raise DataError(f"The offsets do not cover the {n_rows} rows of the concept labels.")
    by_instance = np.asarray(per_instance, dtype=bool)
    counted = by_instance[table.col]
    row, concept = table.row[counted].astype(np.int64), table.col[counted].astype(np.int64)
    order = np.lexsort((row, concept))
    row, concept = row[order], concept[order]
    if runs is not None:
        members = _from_runs(*(np.asarray(part, dtype=np.int64) for part in runs), by_instance)  # pyright: ignore[reportCallIssue]
        _check_covered(members, row, concept, n_rows, names)
    else:
        sequence = np.searchsorted(bounds, row, side="right") - 1
        members = _from_labels(instances, row, concept, sequence, names)
    ones = np.ones(table.nnz, dtype=np.uint8)
    matrix = sparse.csr_array((ones, (table.row, table.col)), shape=(n_rows, n_concepts))
    matrix.sum_duplicates()
    return Concepts(tuple(names), by_instance, matrix, members, bounds)


def _ramp(lengths: IntArray) -> IntArray:
    """0, 1, ... within each of several runs laid end to end."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def _from_runs(concept: IntArray, start: IntArray, end: IntArray, by_instance: BoolArray) -> Instances:
    chosen = np.flatnonzero(by_instance[concept] & (end > start))
    chosen = chosen[np.lexsort((start[chosen], concept[chosen]))]
    lengths = (end - start)[chosen]
    rows = np.repeat(start[chosen], lengths) + _ramp(lengths)
    return Instances(rows, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), concept[chosen])


def _check_covered(
    members: Instances, row: IntArray, concept: IntArray, n_rows: int, names: Sequence[str]
) -> None:
    covered = np.repeat(members.concept, np.diff(members.starts)) * n_rows + members.rows
    lacking = np.flatnonzero(~np.isin(concept * n_rows + row, covered))
    if len(lacking):
        first = lacking[0]
        raise DataError(
            f"Concept {names[concept[first]]!r} counts instances, but nucleotide {row[first]} is labelled and "  # pyright: ignore[reportArgumentType, reportCallIssue]
            "lies in none of its runs."
        )


def _from_labels(
    instances: Any | None, row: IntArray, concept: IntArray, sequence: IntArray, names: Sequence[str]
) -> Instances:
    """Instances from ids, or from runs of neighbours; ``row`` and ``concept`` ordered by concept, then row."""
    if instances is None:
        new = np.ones(len(row), dtype=bool)
        new[1:] = (np.diff(concept) != 0) | (np.diff(row) != 1) | (np.diff(sequence) != 0)
    else:
        ids = sparse.csr_array(instances)
        given = (
            np.asarray(ids[row, concept]).ravel().astype(np.int64)
            if len(row)
            else np.empty(0, dtype=np.int64)
        )
        lacking = np.flatnonzero(given == 0)
        if len(lacking):
            first = lacking[0]
            raise DataError(
                f"Concept {names[concept[first]]!r} counts instances, but nucleotide {row[first]} (sequence "  # pyright: ignore[reportArgumentType, reportCallIssue]
                f"{sequence[first]}) is labelled without an instance id."
            )
        order = np.lexsort((row, given, sequence, concept))
        row, concept, sequence, given = row[order], concept[order], sequence[order], given[order]
        new = np.ones(len(row), dtype=bool)
        new[1:] = (np.diff(concept) != 0) | (np.diff(sequence) != 0) | (np.diff(given) != 0)
    starts = np.flatnonzero(new)
    return Instances(row, np.append(starts, len(row)).astype(np.int64), concept[starts])
