"""Which feature fires on which biological concept, nucleotide by nucleotide.

The measure of InterPLM (Simon and Zou 2024), mended: each feature is scaled by its largest activation on the
discovery clusters and thresholded; precision is counted per nucleotide, recall per nucleotide or, for
concepts that are instances (a start codon, an ARE), per instance, which counts once when any of its
positions fires. Scale and threshold are frozen on the discovery clusters and everything is reported on the
validation clusters, beside the base rate, a null of circularly shifted labels, and baselines that go through
the very same function.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import sparse

from helix_sae.errors import AnalysisError, DataError
from helix_sae.statistics.ranks import sort_columns

THRESHOLDS = (0.0, 0.15, 0.5, 0.6, 0.8)
BLOCK_NONZEROS = 16_000_000  # codes sorted at once; about 0.4 GB of work space

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Concepts:
    """Nucleotide-level labels, ready for matching; made by :func:`prepare_concepts`.

    Attributes
    ----------
    names : tuple of str (n_concepts,)
    per_instance : bool (n_concepts,)
        Recall is counted per instance (else per nucleotide).
    labels : csr int32 (n_nucleotides, n_concepts)
        Non-zero where the concept holds: the number (from 1) of the instance, counted through over all
        concepts and sequences; for concepts with recall per nucleotide just 1.
    offsets : int64 (n_sequences + 1,)
        Where each sequence's nucleotides start.
    """

    names: tuple[str, ...]
    per_instance: BoolArray
    labels: Any
    offsets: IntArray

    @property
    def n_nucleotides(self) -> int:
        """Number of rows."""
        return int(self.labels.shape[0])


def prepare_concepts(
    labels: Any,
    names: Sequence[str],
    per_instance: Sequence[bool],
    offsets: Any,
    instances: Any | None = None,
) -> Concepts:
    """Bring labels and instance ids into one sparse matrix.

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
        Instance ids, 0 for none; they need only be distinct within a sequence and concept. Without them
        every run of neighbouring labelled nucleotides of a sequence is one instance.

    Returns
    -------
    Concepts

    Raises
    ------
    DataError
        If shapes do not agree, or a labelled nucleotide of an instance concept has no instance.
    """
    table = sparse.coo_array(labels)
    table.eliminate_zeros()
    n_rows, n_concepts = table.shape
    bounds = np.asarray(offsets, dtype=np.int64)
    if len(names) != n_concepts or len(per_instance) != n_concepts:
        raise DataError(f"{n_concepts} concept columns, but {len(names)} names and {len(per_instance)} modes.")
    if bounds[0] != 0 or bounds[-1] != n_rows or (np.diff(bounds) < 0).any():
        raise DataError(f"The offsets do not cover the {n_rows} rows of the concept labels.")
    row, concept = table.row.astype(np.int64), table.col.astype(np.int64)
    order = np.lexsort((row, concept))
    row, concept = row[order], concept[order]
    sequence = np.searchsorted(bounds, row, side="right") - 1
    by_instance = np.asarray(per_instance, dtype=bool)
    if instances is None:
        starts = np.ones(len(row), dtype=bool)
        starts[1:] = (np.diff(concept) != 0) | (np.diff(row) != 1) | (np.diff(sequence) != 0)
        number = np.cumsum(starts)
    else:
        number = _given_instances(instances, row, concept, sequence, by_instance, names)
    data = np.where(by_instance[concept], number, 1).astype(np.int32)
    matrix = sparse.csr_array((data, (row, concept)), shape=(n_rows, n_concepts))
    return Concepts(tuple(names), by_instance, matrix, bounds)


def _given_instances(
    instances: Any,
    row: IntArray,
    concept: IntArray,
    sequence: IntArray,
    by_instance: BoolArray,
    names: Sequence[str],
) -> IntArray:
    """Number the given instances through over concepts and sequences."""
    ids = sparse.csr_array(instances)
    given = np.asarray(ids[row, concept]).ravel().astype(np.int64) if len(row) else np.empty(0, dtype=np.int64)
    lacking = np.flatnonzero((given == 0) & by_instance[concept])
    if len(lacking):
        first = lacking[0]
        raise DataError(
            f"Concept {names[concept[first]]!r} counts instances, but nucleotide {row[first]} (sequence "
            f"{sequence[first]}) is labelled without an instance id."
        )
    keys = np.column_stack([concept, sequence, given])
    return np.unique(keys, axis=0, return_inverse=True)[1].ravel().astype(np.int64) + 1


# ---------------------------------------------------------------- counting


class _Side(NamedTuple):
    """The concepts as one part of the split sees them."""

    inside: BoolArray  # (n_nucleotides,)
    n_inside: int
    positives: IntArray  # (n_concepts,) labelled nucleotides
    targets: IntArray  # (n_concepts,) what recall is a share of: nucleotides or instances


def _side(concepts: Concepts, inside: BoolArray) -> _Side:
    labels = concepts.labels[np.flatnonzero(inside)]
    n_concepts = len(concepts.names)
    positives = np.bincount(labels.indices, minlength=n_concepts).astype(np.int64)
    instance, first = np.unique(labels.data, return_index=True)
    of_instance = labels.indices[first][concepts.per_instance[labels.indices[first]] & (instance > 0)]
    n_instances = np.bincount(of_instance, minlength=n_concepts)
    return _Side(inside, int(inside.sum()), positives, np.where(concepts.per_instance, n_instances, positives))


@numba.njit(cache=True, nogil=True)
def _largest(pointer: Any, indices: Any, data: Any, inside: Any, n_features: int) -> Any:  # pragma: no cover
    """Largest activation of each feature on the rows inside."""
    scale = np.zeros(n_features)
    for row in range(pointer.shape[0] - 1):
        if inside[row]:
            for i in range(pointer[row], pointer[row + 1]):
                if data[i] > scale[indices[i]]:
                    scale[indices[i]] = data[i]
    return scale


@numba.njit(cache=True, nogil=True)
def _tally(
    pointer: Any,
    indices: Any,
    data: Any,
    part_of_row: Any,
    bars: Any,
    label_pointer: Any,
    label_concept: Any,
    n_concepts: int,
) -> Any:  # pragma: no cover - compiled
    """One pass over the rows: how often each feature fires, and inside which concepts.

    ``bars`` (n_features, n_thresholds) are rising activations that have to be exceeded; ``part_of_row`` is 0
    (discovery), 1 (validation) or -1. Row by row, a nucleotide's concepts are read once for all its features.
    """
    n_features, n_levels = bars.shape
    fired = np.zeros((2, n_features, n_levels), dtype=np.int64)
    true = np.zeros((2, n_features, n_levels, n_concepts), dtype=np.int32)
    for row in range(pointer.shape[0] - 1):
        part = part_of_row[row]
        if part < 0:
            continue
        for i in range(pointer[row], pointer[row + 1]):
            feature = indices[i]
            level = -1
            while level + 1 < n_levels and data[i] > bars[feature, level + 1]:
                level += 1
            if level >= 0:
                fired[part, feature, level] += 1
                for j in range(label_pointer[row], label_pointer[row + 1]):
                    true[part, feature, level, label_concept[j]] += 1
    for level in range(n_levels - 2, -1, -1):  # what passes a bar passes all lower ones
        fired[:, :, level] += fired[:, :, level + 1]
        true[:, :, level] += true[:, :, level + 1]
    return fired, true


@numba.njit(cache=True, nogil=True)
def _tally_instances(
    pointer: Any,
    indices: Any,
    data: Any,
    part_of_row: Any,
    bars: Any,
    rows: Any,
    starts: Any,
    concept_of_instance: Any,
    n_concepts: int,
) -> Any:  # pragma: no cover - compiled
    """How many instances of each concept have at least one firing nucleotide.

    ``rows`` lists the nucleotides of one instance after the other, ``starts`` where each begins.
    """
    n_features, n_levels = bars.shape
    hit = np.zeros((2, n_features, n_levels, n_concepts), dtype=np.int32)
    best = np.full(n_features, -1, dtype=np.int64)
    touched = np.empty(n_features, dtype=np.int64)
    for instance in range(starts.shape[0] - 1):
        part = part_of_row[rows[starts[instance]]]
        if part < 0:
            continue
        n_touched = 0
        for r in range(starts[instance], starts[instance + 1]):
            for i in range(pointer[rows[r]], pointer[rows[r] + 1]):
                feature = indices[i]
                level = -1
                while level + 1 < n_levels and data[i] > bars[feature, level + 1]:
                    level += 1
                if level > best[feature]:
                    if best[feature] < 0:
                        touched[n_touched] = feature
                        n_touched += 1
                    best[feature] = level
        for t in range(n_touched):
            hit[part, touched[t], best[touched[t]], concept_of_instance[instance]] += 1
            best[touched[t]] = -1
    for level in range(n_levels - 2, -1, -1):
        hit[:, :, level] += hit[:, :, level + 1]
    return hit


def _instances(concepts: Concepts) -> tuple[IntArray, IntArray, IntArray]:
    """Nucleotides by instance, where each instance starts in them, and its concept."""
    table = concepts.labels.tocoo()
    counted = concepts.per_instance[table.col]
    row, concept, number = table.row[counted], table.col[counted], table.data[counted]
    order = np.lexsort((row, number))
    row, concept, number = row[order], concept[order], number[order]
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    return row.astype(np.int64), np.append(starts, len(row)).astype(np.int64), concept[starts].astype(np.int64)


def _scores(fired: IntArray, true: Any, found: Any, targets: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Precision, recall and F1 of counts that broadcast together; 0 where nothing fires."""
    precision = np.where(fired > 0, true / np.maximum(fired, 1), 0.0)
    recall = found / np.maximum(targets, 1)
    total = precision + recall
    return precision, recall, np.where(total > 0, 2 * precision * recall / np.where(total > 0, total, 1), 0.0)


@numba.njit(cache=True, nogil=True)
def _average_precision(
    rows: Any, leads: Any, inside: Any, label: Any, positives: int, n_inside: int
) -> float:  # pragma: no cover - compiled
    """Area under the precision-recall steps of one feature and concept; tied activations are one step."""
    area = 0.0
    n_fired, n_true = 0, 0
    end = rows.shape[0]
    while end > 0:
        start = end - 1
        while not leads[start]:
            start -= 1
        before = n_true
        for i in range(start, end):
            if inside[rows[i]]:
                n_fired += 1
                if label[rows[i]] != 0:
                    n_true += 1
        if n_true > before:
            area += (n_true - before) / positives * n_true / n_fired
        end = start
    # what never fires is found last, at the base rate
    return area + (1.0 - n_true / positives) * positives / n_inside


@numba.njit(cache=True, nogil=True)
def _shifted_counts(
    rows: Any, segment: Any, bounds: Any, shifts: Any, label: Any, seen: Any, stamp: int
) -> Any:  # pragma: no cover - compiled
    """True positives and hit instances of one feature when its firing positions rotate in their segments.

    Rotating what fires against the labels is the same as rotating the labels against it.
    """
    n_true, n_hit = 0, 0
    for i in range(rows.shape[0]):
        at = segment[rows[i]]
        start, length = bounds[at], bounds[at + 1] - bounds[at]
        offset = rows[i] - start + shifts[at]
        number = label[start + (offset if offset < length else offset - length)]
        if number != 0:
            n_true += 1
            if seen[number] != stamp:
                seen[number] = stamp
                n_hit += 1
    return n_true, n_hit


# ---------------------------------------------------------------- matching


class ConceptTables(NamedTuple):
    """Result of :func:`match_concepts`.

    Attributes
    ----------
    matches : DataFrame
        The ``top`` features of every concept and the best concept of every feature, chosen on the discovery
        clusters. ``site``, ``feature``, ``concept``, ``recall_mode`` (nucleotide or instance),
        ``threshold`` (share of the discovery maximum), ``scale`` (that maximum), ``rank_for_concept``,
        ``best_concept_of_feature``, ``discovery_f1``; on the validation clusters ``precision``, ``recall``,
        ``f1``, ``average_precision``, ``base_rate`` (share of nucleotides inside the concept), ``lift``
        (precision over base rate), ``f1_always`` (F1 of a detector that always fires), ``n_fired``,
        ``n_positive`` (nucleotides), ``n_targets`` (what recall is a share of); ``null_f1`` (mean under
        circular shifts), ``null_f1_95``, ``p_value`` (share of shifts with at least this F1; NaN where no
        null was computed).
    best : DataFrame
        The first feature of every (site, concept).
    warnings : DataFrame
        ``concept``, ``warning``, ``detail``: concepts that one of the splits lacks.
    """

    matches: pd.DataFrame
    best: pd.DataFrame
    warnings: pd.DataFrame


class _Found(NamedTuple):
    """Per feature and concept, threshold chosen on the discovery set."""

    feature: IntArray
    scale: FloatArray
    threshold: IntArray
    discovery_f1: FloatArray
    precision: FloatArray
    recall: FloatArray
    f1: FloatArray
    fired: IntArray


def match_concepts(
    codes: Mapping[str, Any],
    concepts: Concepts,
    split: Any,
    *,
    regions: Int[np.ndarray, " n_nucleotides"] | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    top: int = 10,
    n_shifted: int = 3,
    n_shifts: int = 100,
    min_positive: int = 10,
    block_nonzeros: int = BLOCK_NONZEROS,
    seed: int = 0,
) -> ConceptTables:
    """Match every feature of every site with every concept.

    Parameters
    ----------
    codes : mapping site -> csr (n_nucleotides, n_features)
        Codes of the nucleotide tokens, >= 0. Baselines (neurons, components, k-mers) come in the same form.
    concepts : Concepts
    split : array of str (n_sequences,)
        ``discovery`` or ``validation`` for each sequence; other parts are left alone.
    regions : int (n_nucleotides,), optional
        Region of each nucleotide (5'UTR, CDS, 3'UTR as three numbers). The null then shifts labels within
        the region; a concept that fills its regions whole is shifted within the transcript.
    thresholds : sequence of float
        Shares of the discovery maximum, rising; a feature fires above them.
    top : int
        Features kept for each concept.
    n_shifted : int
        So many first features of each concept get a null.
    n_shifts : int
        Circular shifts of the null; 0 for none.
    min_positive : int
        Concepts with fewer labelled nucleotides in one of the splits are left out, with a warning.
    block_nonzeros : int
        Bound on the codes that are sorted at once (for the average precision of the kept features).
    seed : int
        Of the shifts.

    Returns
    -------
    ConceptTables

    Raises
    ------
    DataError
        If codes, concepts and split do not fit.
    AnalysisError
        If codes are negative, a split is empty, or no concept is left.
    """
    parts = np.asarray(split, dtype=object)
    if len(parts) != len(concepts.offsets) - 1:
        raise DataError(f"The split names {len(parts)} sequences, the concepts {len(concepts.offsets) - 1}.")
    per_nucleotide = np.repeat(parts, np.diff(concepts.offsets))
    sides = [_side(concepts, per_nucleotide == name) for name in ("discovery", "validation")]
    for name, side in zip(("discovery", "validation"), sides, strict=True):
        if not side.n_inside:
            raise AnalysisError(f"The split holds no nucleotide named {name!r}.")
    kept, warnings = _testable(concepts, sides, min_positive)
    concepts = Concepts(
        tuple(concepts.names[c] for c in kept),
        concepts.per_instance[kept],
        sparse.csr_array(concepts.labels[:, kept]),
        concepts.offsets,
    )
    sides = [_side(concepts, side.inside) for side in sides]
    levels = np.asarray(sorted(thresholds), dtype=np.float64)
    segments = _segments(concepts, regions)
    tables: list[pd.DataFrame] = []
    for site, matrix in codes.items():
        csr = _checked(site, matrix, concepts)
        found = _match_site(csr, concepts, sides, levels)
        table = _select(site, found, concepts, sides[1], levels, top)
        table["average_precision"] = _precisions(csr, table, concepts, sides[1], block_nonzeros)
        tables.append(table.join(_null(csr, table, concepts, sides[1], segments, n_shifted, n_shifts, seed)))
    matches = pd.concat(tables, ignore_index=True)
    best = matches[matches["rank_for_concept"] == 1].reset_index(drop=True)
    return ConceptTables(matches, best, warnings)


def _testable(concepts: Concepts, sides: list[_Side], min_positive: int) -> tuple[IntArray, pd.DataFrame]:
    rows: list[tuple[str, str, str]] = []
    kept: list[int] = []
    for index, name in enumerate(concepts.names):
        counts = [int(side.positives[index]) for side in sides]
        if min(counts) >= max(min_positive, 1):
            kept.append(index)
        else:
            detail = f"{counts[0]} discovery and {counts[1]} validation nucleotides, {min_positive} needed"
            rows.append((name, "too_rare", detail))
    if not kept:
        raise AnalysisError(f"No concept has {min_positive} labelled nucleotides in both splits.")
    return np.asarray(kept), pd.DataFrame(rows, columns=["concept", "warning", "detail"])


def _checked(site: str, matrix: Any, concepts: Concepts) -> Any:
    csr = sparse.csr_array(matrix)
    if csr.shape[0] != concepts.n_nucleotides:
        raise DataError(
            f"Site {site!r} has codes of {csr.shape[0]} nucleotides, the concepts label {concepts.n_nucleotides}. "
            "Leave out the rows of codon-start tokens."
        )
    if csr.data.size and csr.data.min() < 0:
        raise AnalysisError(f"Site {site!r} has negative codes; split signed activations by signed_halves first.")
    return csr.astype(np.float32) if csr.dtype != np.float32 else csr


def _match_site(csr: Any, concepts: Concepts, sides: list[_Side], levels: FloatArray) -> _Found:
    """Choose thresholds on the discovery side, score on the validation side; one pass over the codes."""
    part_of_row = np.full(concepts.n_nucleotides, -1, dtype=np.int8)
    for part, side in enumerate(sides):
        part_of_row[side.inside] = part
    n_concepts = len(concepts.names)
    scale = _largest(csr.indptr, csr.indices, csr.data, sides[0].inside, csr.shape[1])
    alive = np.flatnonzero(scale > 0)
    if not len(alive):
        raise AnalysisError("No feature is active on the discovery set: there is nothing to match.")
    # a feature without a scale is dead on the discovery set and never fires
    bars = np.where(scale[:, None] > 0, scale[:, None] * levels, np.inf)
    codes = (csr.indptr, csr.indices, csr.data, part_of_row, bars)
    labels = concepts.labels
    fired, true = _tally(*codes, labels.indptr, labels.indices, n_concepts)
    hit = _tally_instances(*codes, *_instances(concepts), n_concepts)
    scores: list[tuple[FloatArray, FloatArray, FloatArray]] = []
    for part, side in enumerate(sides):
        found = np.where(concepts.per_instance, hit[part][alive], true[part][alive])
        scores.append(_scores(fired[part][alive][:, :, None], true[part][alive], found, side.targets))
    chosen = scores[0][2].argmax(axis=1)

    def at(values: FloatArray) -> FloatArray:
        return np.take_along_axis(values, chosen[:, None, :], axis=1)[:, 0]

    precision, recall, f1 = (at(score) for score in scores[1])
    n_fired = np.take_along_axis(fired[1][alive], chosen, axis=1)
    return _Found(alive, scale[alive], chosen, at(scores[0][2]), precision, recall, f1, n_fired)


def _select(
    site: str, found: _Found, concepts: Concepts, side: _Side, levels: FloatArray, top: int
) -> pd.DataFrame:
    """The first features of each concept and the best concept of each feature, by the discovery set."""
    n_features, n_concepts = found.discovery_f1.shape
    base_rate = side.positives / side.n_inside
    always = 2 * base_rate / (1 + base_rate)
    # a frequent concept is easy to score on: compare concepts by the gain over a detector that always fires
    gain = (found.discovery_f1 - always) / (1 - always + 1e-12)
    order = np.argsort(-found.discovery_f1, axis=0, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(n_features)[:, None] + np.zeros((1, n_concepts), int), axis=0)
    best = np.zeros((n_features, n_concepts), dtype=bool)
    best[np.arange(n_features), gain.argmax(axis=1)] = True
    f, c = np.nonzero((rank < top) | best)
    frame = pd.DataFrame(
        {
            "site": np.full(len(f), site, dtype=object),
            "feature": found.feature[f],
            "concept": np.asarray(concepts.names, dtype=object)[c],
            "recall_mode": np.where(concepts.per_instance[c], "instance", "nucleotide").astype(object),
            "threshold": levels[found.threshold[f, c]],
            "scale": found.scale[f],
            "rank_for_concept": rank[f, c] + 1,
            "best_concept_of_feature": best[f, c],
            "discovery_f1": found.discovery_f1[f, c],
            "precision": found.precision[f, c],
            "recall": found.recall[f, c],
            "f1": found.f1[f, c],
            "base_rate": base_rate[c],
            "lift": found.precision[f, c] / base_rate[c],
            "f1_always": always[c],
            "n_fired": found.fired[f, c],
            "n_positive": side.positives[c],
            "n_targets": side.targets[c],
            "_order": c,
        }
    )
    frame = frame.sort_values(["_order", "rank_for_concept"], kind="stable")
    return frame.drop(columns="_order").reset_index(drop=True)


def _precisions(
    csr: Any, table: pd.DataFrame, concepts: Concepts, side: _Side, block_nonzeros: int
) -> FloatArray:
    """Average precision of the kept pairs on the validation side; columns sorted block by block."""
    feature = table["feature"].to_numpy(dtype=np.int64)
    concept = pd.Index(concepts.names).get_indexer(pd.Index(table["concept"]))
    by_concept = sparse.csc_array(concepts.labels)
    label = np.zeros(concepts.n_nucleotides, dtype=np.int32)
    result = np.empty(len(table))
    for block in _blocks(csr, np.unique(feature), block_nonzeros):
        columns = sort_columns(csr[:, block])
        here = np.flatnonzero(np.isin(feature, block))
        for c in np.unique(concept[here]):
            start, stop = by_concept.indptr[c], by_concept.indptr[c + 1]
            label[by_concept.indices[start:stop]] = 1
            for pair in here[concept[here] == c]:
                column = int(np.searchsorted(block, feature[pair]))
                span = slice(columns.indptr[column], columns.indptr[column + 1])
                result[pair] = _average_precision(
                    columns.rows[span],
                    columns.leads[span],
                    side.inside,
                    label,
                    int(side.positives[c]),
                    side.n_inside,
                )
            label[by_concept.indices[start:stop]] = 0
    return result


def _blocks(csr: Any, features: IntArray, block_nonzeros: int) -> Iterator[IntArray]:
    """The features in runs that together hold at most ``block_nonzeros`` (or are single)."""
    sizes = np.bincount(csr.indices, minlength=csr.shape[1])[features]
    start, held = 0, 0
    for position, size in enumerate(sizes):
        if held and held + size > block_nonzeros:
            yield features[start:position]
            start, held = position, 0
        held += size
    if start < len(features):
        yield features[start:]


# ---------------------------------------------------------------- null


class _Segments(NamedTuple):
    """What labels rotate in: regions within transcripts, or whole transcripts for concepts that fill regions."""

    region_bounds: IntArray
    transcript_bounds: IntArray
    by_transcript: BoolArray  # (n_concepts,)


def _segments(concepts: Concepts, regions: Any | None) -> _Segments:
    offsets = np.unique(concepts.offsets)  # empty sequences have no nucleotide to rotate
    if regions is None:
        return _Segments(offsets, offsets, np.ones(len(concepts.names), dtype=bool))
    values = np.asarray(regions)
    if len(values) != concepts.n_nucleotides:
        raise DataError(f"{len(values)} regions for {concepts.n_nucleotides} nucleotides.")
    change = np.zeros(len(values) + 1, dtype=bool)
    change[offsets] = True
    change[1:-1] |= values[1:] != values[:-1]
    bounds = np.flatnonzero(change)
    return _Segments(bounds, offsets, _fills_segments(concepts.labels, bounds))


def _fills_segments(labels: Any, bounds: IntArray) -> BoolArray:
    """Concepts that hold in whole segments or not at all in them: turning a segment changes nothing."""
    n_segments = len(bounds) - 1
    segment = np.repeat(np.arange(n_segments), np.diff(bounds))
    membership = sparse.csr_array(
        (np.ones(bounds[-1]), (segment, np.arange(bounds[-1]))), shape=(n_segments, labels.shape[0])
    )
    held = (membership @ (labels != 0).astype(np.float64)).tocoo()
    fills = np.ones(labels.shape[1], dtype=bool)
    fills[held.col[held.data < np.diff(bounds)[held.row]]] = False
    return fills


def _null(
    csr: Any,
    table: pd.DataFrame,
    concepts: Concepts,
    side: _Side,
    segments: _Segments,
    n_shifted: int,
    n_shifts: int,
    seed: int,
) -> pd.DataFrame:
    """F1 of the first features of each concept when the labels rotate within transcript or region."""
    result = pd.DataFrame(
        {name: np.full(len(table), np.nan) for name in ("null_f1", "null_f1_95", "p_value")}, index=table.index
    )
    chosen = np.flatnonzero(table["rank_for_concept"].to_numpy() <= n_shifted)
    if not n_shifts or not len(chosen):
        return result
    firing = _firing(csr, table.iloc[chosen], side)
    concept = pd.Index(concepts.names).get_indexer(pd.Index(table["concept"].iloc[chosen]))
    null = np.empty((n_shifts, len(chosen)))
    by_concept = sparse.csc_array(concepts.labels)
    for by_transcript in (False, True):
        bounds = segments.transcript_bounds if by_transcript else segments.region_bounds
        lengths = np.diff(bounds)
        segment = np.repeat(np.arange(len(lengths)), lengths)
        rng = np.random.default_rng([seed, int(by_transcript)])
        shifts = (rng.random((n_shifts, len(lengths))) * lengths).astype(np.int64)
        for c in np.unique(concept[segments.by_transcript[concept] == by_transcript]):
            label, n_numbers = _dense_label(by_concept, c, bool(concepts.per_instance[c]))
            seen = np.full(n_numbers + 1, -1, dtype=np.int64)
            for pair in np.flatnonzero(concept == c):
                for index in range(n_shifts):
                    stamp = int(pair) * n_shifts + index
                    n_true, n_hit = _shifted_counts(
                        firing[pair], segment, bounds, shifts[index], label, seen, stamp
                    )
                    found = n_hit if concepts.per_instance[c] else n_true
                    fired = np.asarray(len(firing[pair]))
                    null[index, pair] = _scores(fired, n_true, found, side.targets[c])[2]
    observed = table["f1"].to_numpy()[chosen]
    result.iloc[chosen, 0] = null.mean(axis=0)
    result.iloc[chosen, 1] = np.quantile(null, 0.95, axis=0)
    result.iloc[chosen, 2] = (1 + (null >= observed - 1e-12).sum(axis=0)) / (n_shifts + 1)
    return result


def _firing(csr: Any, table: pd.DataFrame, side: _Side) -> list[IntArray]:
    """Validation nucleotides where each kept feature is above its frozen threshold, rising."""
    features, position = np.unique(table["feature"].to_numpy(dtype=np.int64), return_inverse=True)
    columns = sparse.csc_array(csr[:, features])
    firing: list[IntArray] = []
    bars = (table["threshold"] * table["scale"]).to_numpy(dtype=np.float64)
    for column, bar in zip(position, bars, strict=True):
        span = slice(columns.indptr[column], columns.indptr[column + 1])
        rows = columns.indices[span].astype(np.int64)
        firing.append(np.sort(rows[(columns.data[span] > bar) & side.inside[rows]]))
    return firing


def _dense_label(by_concept: Any, concept: int, per_instance: bool) -> tuple[npt.NDArray[np.int32], int]:
    """One concept as a dense column: 0 outside, else the instance, numbered from 1 (or just 1)."""
    label = np.zeros(by_concept.shape[0], dtype=np.int32)
    span = slice(by_concept.indptr[concept], by_concept.indptr[concept + 1])
    if not per_instance:
        label[by_concept.indices[span]] = 1
        return label, 1
    numbers, number = np.unique(by_concept.data[span], return_inverse=True)
    label[by_concept.indices[span]] = number + 1
    return label, len(numbers)


# ---------------------------------------------------------------- baselines


def signed_halves(values: Float[np.ndarray, "n_nucleotides n_units"], rows: Bool[np.ndarray, " n_nucleotides"]) -> Any:
    """Signed units (neurons, components) as detectors: deviation above and below the mean, one column each.

    Parameters
    ----------
    values : float (n_nucleotides, n_units)
    rows : bool (n_nucleotides,)
        Rows that give the mean (the discovery set).

    Returns
    -------
    csr float32 (n_nucleotides, 2 n_units)
        Column u fires above the mean of unit u, column n_units + u below it.
    """
    centred = np.asarray(values, dtype=np.float32)
    centred = centred - centred[rows].mean(axis=0, dtype=np.float64).astype(np.float32)
    return sparse.hstack(
        [sparse.csr_array(np.maximum(centred, 0)), sparse.csr_array(np.maximum(-centred, 0))], format="csr"
    )


def principal_components(
    values: Float[np.ndarray, "n_nucleotides n_units"], rows: Bool[np.ndarray, " n_nucleotides"], n_components: int
) -> Float[np.ndarray, "n_nucleotides n_components"]:
    """Scores on the leading principal components, fitted on ``rows`` (the discovery set)."""
    fitted = np.asarray(values[rows], dtype=np.float64)
    mean = fitted.mean(axis=0)
    covariance = (fitted - mean).T @ (fitted - mean) / max(len(fitted) - 1, 1)
    _, vectors = np.linalg.eigh(covariance)
    leading = vectors[:, ::-1][:, : min(n_components, vectors.shape[1])]
    # the sign of an eigenvector is arbitrary: fix it, so that results repeat
    leading = leading * np.sign(leading[np.abs(leading).argmax(axis=0), np.arange(leading.shape[1])])
    return ((values - mean) @ leading).astype(np.float32)


def kmer_detectors(
    letters: Int[np.ndarray, " n_nucleotides"],
    offsets: Int[np.ndarray, " n_sequences_plus_1"],
    k: int,
    alphabet: str = "ACGU",
) -> tuple[Any, list[str]]:
    """One detector for every k-mer, firing on its last nucleotide (a causal model knows no more there).

    Parameters
    ----------
    letters : int (n_nucleotides,)
        Index into ``alphabet``; any other value (an N) belongs to no k-mer.
    offsets : int (n_sequences + 1,)
        Where each sequence starts; no k-mer crosses a boundary.
    k : int
        1 to 6.

    Returns
    -------
    codes : csr float32 (n_nucleotides, len(alphabet)**k)
    names : list of str
    """
    if not 1 <= k <= 6:
        raise AnalysisError(f"k must lie between 1 and 6, not {k}: the detectors number {len(alphabet)}^k.")
    letters = np.asarray(letters, dtype=np.int64)
    base = len(alphabet)
    word = np.zeros(len(letters), dtype=np.int64)
    within = np.arange(len(letters)) - np.repeat(np.asarray(offsets)[:-1], np.diff(offsets))
    valid = within >= k - 1
    for back in range(k):
        shifted = np.full(len(letters), -1, dtype=np.int64)
        shifted[back:] = letters[: len(letters) - back]
        valid &= (shifted >= 0) & (shifted < base)
        word += np.where(shifted >= 0, shifted, 0) * base**back
    rows = np.flatnonzero(valid)
    codes = sparse.csr_array(
        (np.ones(len(rows), dtype=np.float32), (rows, word[rows])), shape=(len(letters), base**k)
    )
    names = ["".join(alphabet[(w // base**p) % base] for p in reversed(range(k))) for w in range(base**k)]
    return codes, names


def compare_with_baselines(tables: Mapping[str, ConceptTables]) -> pd.DataFrame:
    """Best validation F1 of each concept by each kind of detector, side by side.

    Parameters
    ----------
    tables : mapping kind -> ConceptTables
        For example ``sae``, ``neurons``, ``pca``, ``kmers``, ``random_model``: all made with the same concepts
        and split.

    Returns
    -------
    DataFrame
        ``concept``, ``kind``, ``site``, ``feature`` (first by discovery F1 over the sites of that kind),
        ``discovery_f1``, ``f1``, ``average_precision``, ``lift``, ``p_value``.
    """
    columns = ["concept", "kind", "site", "feature", "discovery_f1", "f1", "average_precision", "lift", "p_value"]
    parts: list[pd.DataFrame] = []
    for kind, table in tables.items():
        ordered = table.best.sort_values("discovery_f1", ascending=False, kind="stable")
        parts.append(ordered.drop_duplicates("concept").assign(kind=kind)[columns])
    order = {name: i for i, name in enumerate(dict.fromkeys(c for part in parts for c in part["concept"]))}
    joined = pd.concat(parts, ignore_index=True)
    return joined.sort_values("concept", key=lambda s: s.map(order), kind="stable").reset_index(drop=True)
