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
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from jaxtyping import Float, Int
from scipy import sparse

from helix_sae.errors import AnalysisError, DataError
from helix_sae.statistics.concept_counts import (
    at_least,
    average_precision,
    largest,
    shifted_counts,
    tally,
    tally_instances,
)
from helix_sae.statistics.concepts import Concepts, prepare_concepts
from helix_sae.statistics.detectors import (
    kmer_detectors,
    marker_detectors,
    position_detectors,
    principal_components,
    signed_halves,
)
from helix_sae.statistics.multiple_testing import adjust
from helix_sae.statistics.ranks import index_arrays, sort_columns

MIN_F1 = 0.5
"""F1 from which a feature stands for a concept (Simon and Zou 2024)."""
MARGIN = 0.05
"""So much better than what needs no trained model a detector has to be."""

__all__ = [
    "BLOCK_NONZEROS",
    "THRESHOLDS",
    "ConceptTables",
    "Concepts",
    "compare_with_baselines",
    "judge_detectors",
    "kmer_detectors",
    "marker_detectors",
    "match_concepts",
    "position_detectors",
    "prepare_concepts",
    "principal_components",
    "signed_halves",
]

FEATURES_AT_ONCE = 4096  # bounds the counters: features x thresholds x concepts
THRESHOLDS = (0.0, 0.15, 0.5, 0.6, 0.8)
EQUAL = 0.02
"""Discovery F1 this close count as equal; what covers more of the labelled nucleotides then goes first."""
BLOCK_NONZEROS = 16_000_000  # codes sorted at once; about 0.4 GB of work space

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class ConceptTables(NamedTuple):
    """Result of :func:`match_concepts`.

    Attributes
    ----------
    matches : DataFrame
        The ``top`` features of every concept and the best concept of every feature, chosen on the discovery
        clusters by F1; of those within 0.02 of the best, the one whose firing covers most of the labelled
        nucleotides comes first. ``site``, ``feature``, ``concept``, ``recall_mode`` (nucleotide or instance),
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


class _Side(NamedTuple):
    """The concepts as one part of the split sees them."""

    inside: BoolArray  # (n_nucleotides,)
    n_inside: int
    positives: IntArray  # (n_concepts,) labelled nucleotides
    targets: IntArray  # (n_concepts,) what recall is a share of: nucleotides or instances


def _side(concepts: Concepts, inside: BoolArray) -> _Side:
    n_concepts = len(concepts.names)
    positives = np.bincount(concepts.labels[np.flatnonzero(inside)].indices, minlength=n_concepts)
    instances = concepts.instances
    first = instances.rows[instances.starts[:-1]]  # splits go by sequence, and so whole instances do
    n_instances = np.bincount(instances.concept[inside[first]], minlength=n_concepts)
    targets = np.where(concepts.per_instance, n_instances, positives)
    return _Side(inside, int(inside.sum()), positives.astype(np.int64), targets.astype(np.int64))


class _Found(NamedTuple):
    """Per feature and concept, threshold chosen on the discovery set; ``coverage`` is the F1 with recall by nucleotide."""

    feature: IntArray
    scale: FloatArray
    threshold: IntArray
    discovery_f1: FloatArray
    discovery_coverage: FloatArray
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
    best_only: bool = False,
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
    best_only : bool
        Keep the first feature of each concept and nothing else, which is all that
        :func:`compare_with_baselines` looks at.
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
    concepts = concepts.keep(kept)
    sides = [_side(concepts, side.inside) for side in sides]
    levels = np.asarray(sorted(thresholds), dtype=np.float64)
    segments = _segments(concepts, regions)
    tables: list[pd.DataFrame] = []
    for site, matrix in codes.items():
        csr = _checked(site, matrix, concepts)
        found = _match_site(csr, concepts, sides, levels)
        table = _select(site, found, concepts, sides, levels, top)
        if best_only:
            table = table[table["rank_for_concept"] == 1].reset_index(drop=True)
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
            f"Site {site!r} has codes of {csr.shape[0]} nucleotides, the concepts label"
            f" {concepts.n_nucleotides}. Leave out the rows of codon-start tokens."
        )
    if csr.data.size and csr.data.min() < 0:
        raise AnalysisError(
            f"Site {site!r} has negative codes; split signed activations by signed_halves first."
        )
    return csr.astype(np.float32) if csr.dtype != np.float32 else csr


def _match_site(csr: Any, concepts: Concepts, sides: list[_Side], levels: FloatArray) -> _Found:
    """Choose thresholds on the discovery side, score on the validation side; one pass a block of features."""
    part_of_row = np.full(concepts.n_nucleotides, -1, dtype=np.int8)
    for part, side in enumerate(sides):
        part_of_row[side.inside] = part
    parts: list[_Found] = []
    for start in range(0, csr.shape[1], FEATURES_AT_ONCE):
        block = csr if csr.shape[1] <= FEATURES_AT_ONCE else csr[:, start : start + FEATURES_AT_ONCE]
        found = _match_block(block, concepts, sides, part_of_row, levels)
        parts.append(found._replace(feature=found.feature + start))
    joined = _Found(*(np.concatenate(values) for values in zip(*parts, strict=True)))
    if not len(joined.feature):
        raise AnalysisError("No feature is active on the discovery set: there is nothing to match.")
    return joined


def _match_block(
    csr: Any, concepts: Concepts, sides: list[_Side], part_of_row: npt.NDArray[np.int8], levels: FloatArray
) -> _Found:
    n_concepts = len(concepts.names)
    pointer, indices = index_arrays(csr)
    scale = largest(pointer, indices, csr.data, sides[0].inside, csr.shape[1])
    alive = np.flatnonzero(scale > 0)
    # a feature without a scale is dead on the discovery set and never fires
    bars = np.where(scale[:, None] > 0, scale[:, None] * levels, np.inf)
    codes = (pointer, indices, csr.data, part_of_row, bars)
    labels = concepts.labels
    fired, true = (at_least(x) for x in tally(*codes, labels.indptr, labels.indices, n_concepts))
    hit = at_least(tally_instances(*codes, *concepts.instances, n_concepts))
    scores: list[tuple[FloatArray, FloatArray, FloatArray]] = []
    covering = _scores(fired[0][alive][:, :, None], true[0][alive], true[0][alive], sides[0].positives)[2]
    for part, side in enumerate(sides):
        found = np.where(concepts.per_instance, hit[part][alive], true[part][alive])
        scores.append(_scores(fired[part][alive][:, :, None], true[part][alive], found, side.targets))
    chosen = scores[0][2].argmax(axis=1)

    def at(values: FloatArray) -> FloatArray:
        return np.take_along_axis(values, chosen[:, None, :], axis=1)[:, 0]

    precision, recall, f1 = (at(score) for score in scores[1])
    n_fired = np.take_along_axis(fired[1][alive], chosen, axis=1)
    return _Found(alive, scale[alive], chosen, at(scores[0][2]), at(covering), precision, recall, f1, n_fired)


def _select(
    site: str, found: _Found, concepts: Concepts, sides: list[_Side], levels: FloatArray, top: int
) -> pd.DataFrame:
    """The first features of each concept and the best concept of each feature, by the discovery set."""
    n_features, n_concepts = found.discovery_f1.shape
    base_rates = [side.positives / side.n_inside for side in sides]
    always = [2 * rate / (1 + rate) for rate in base_rates]
    # a frequent concept is easy to score on: compare concepts by the gain over a detector that always fires
    gain = (found.discovery_f1 - always[0]) / (1 - always[0] + 1e-12)
    first = _first_of_equals(found.discovery_f1, found.discovery_coverage)
    leading = found.discovery_f1.copy()
    leading[first, np.arange(n_concepts)] = np.inf
    order = np.argsort(-leading, axis=0, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(n_features)[:, None] + np.zeros((1, n_concepts), int), axis=0)
    best = np.zeros((n_features, n_concepts), dtype=bool)
    best[np.arange(n_features), _first_of_equals(gain.T, found.discovery_coverage.T)] = True
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
            "base_rate": base_rates[1][c],
            "lift": found.precision[f, c] / base_rates[1][c],
            "f1_always": always[1][c],
            "n_fired": found.fired[f, c],
            "n_positive": sides[1].positives[c],
            "n_targets": sides[1].targets[c],
            "_order": c,
        }
    )
    frame = frame.sort_values(["_order", "rank_for_concept"], kind="stable")
    return frame.drop(columns="_order").reset_index(drop=True)


def _first_of_equals(
    score: Float[np.ndarray, "n_candidates n"], coverage: Float[np.ndarray, "n_candidates n"]
) -> Int[np.ndarray, " n"]:
    """Best candidate of each column; of those nearly as good as the best, the one that covers most nucleotides.

    Recall by instance alone cannot tell the reader of a start codon from that of the Kozak window around it.
    """
    equal = score >= score.max(axis=0) - EQUAL
    return np.where(equal, coverage, -1.0).argmax(axis=0)


def _precisions(
    csr: Any, table: pd.DataFrame, concepts: Concepts, side: _Side, block_nonzeros: int
) -> FloatArray:
    """Average precision of the kept pairs on the validation side; columns sorted block by block."""
    feature = table["feature"].to_numpy(dtype=np.int64)
    concept = pd.Index(concepts.names).get_indexer(pd.Index(table["concept"]))
    by_concept = sparse.csc_array(concepts.labels)
    label = np.zeros(concepts.n_nucleotides, dtype=np.uint8)
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
                result[pair] = average_precision(
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
        {name: np.full(len(table), np.nan) for name in ("null_f1", "null_f1_95", "p_value")},
        index=table.index,
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
            lookup = _lookup(concepts, by_concept, int(c))
            seen = np.full(len(concepts.instances.concept), -1, dtype=np.int64)
            counts = bool(concepts.per_instance[c])
            for pair in np.flatnonzero(concept == c):
                for index in range(n_shifts):
                    stamp = int(pair) * n_shifts + index
                    moved = (firing[pair], segment, bounds, shifts[index])
                    n_true, n_hit = shifted_counts(*moved, *lookup, seen, stamp, counts)
                    found = n_hit if counts else n_true
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


def _lookup(
    concepts: Concepts, by_concept: Any, concept: int
) -> tuple[npt.NDArray[np.uint8], IntArray, IntArray]:
    """One concept by nucleotide: its label, and its instances as pointer and numbers."""
    label = np.zeros(concepts.n_nucleotides, dtype=np.uint8)
    label[by_concept.indices[by_concept.indptr[concept] : by_concept.indptr[concept + 1]]] = 1
    first, last = np.searchsorted(concepts.instances.concept, [concept, concept + 1])
    members = slice(concepts.instances.starts[first], concepts.instances.starts[last])
    rows = concepts.instances.rows[members]
    number = np.repeat(np.arange(first, last), np.diff(concepts.instances.starts[first : last + 1]))
    order = np.argsort(rows, kind="stable")
    pointer = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=concepts.n_nucleotides))])
    return label, pointer.astype(np.int64), number[order].astype(np.int64)


def _scores(
    fired: IntArray, true: Any, found: Any, targets: Any
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Precision, recall and F1 of counts that broadcast together; 0 where nothing fires."""
    precision = np.where(fired > 0, true / np.maximum(fired, 1), 0.0)
    recall = found / np.maximum(targets, 1)
    total = precision + recall
    return precision, recall, np.where(total > 0, 2 * precision * recall / np.where(total > 0, total, 1), 0.0)


def compare_with_baselines(tables: Mapping[str, ConceptTables]) -> pd.DataFrame:
    """Best validation F1 of each concept by each kind of detector, side by side.

    Parameters
    ----------
    tables : mapping kind -> ConceptTables
        For example ``sae``, ``neurons``, ``pca``, ``kmers``, ``random_model``: all made with the same
        concepts and split.

    Returns
    -------
    DataFrame
        ``concept``, ``kind``, ``site``, ``feature`` (first by discovery F1 over the sites of that kind),
        ``discovery_f1``, ``f1``, ``average_precision``, ``lift``, ``p_value``.
    """
    columns = [
        "concept",
        "kind",
        "site",
        "feature",
        "discovery_f1",
        "f1",
        "average_precision",
        "lift",
        "p_value",
    ]
    parts: list[pd.DataFrame] = []
    for kind, table in tables.items():
        ordered = table.best.sort_values("discovery_f1", ascending=False, kind="stable")
        parts.append(ordered.drop_duplicates("concept").assign(kind=kind)[columns])
    order = {c: i for i, c in enumerate(dict.fromkeys(c for t in tables.values() for c in t.best["concept"]))}
    joined = pd.concat(parts, ignore_index=True)
    return joined.sort_values("concept", key=lambda s: s.map(order), kind="stable").reset_index(drop=True)


def judge_detectors(
    baselines: pd.DataFrame,
    readers: Sequence[str],
    *,
    alpha: float = 0.05,
    min_f1: float = MIN_F1,
    margin: float = MARGIN,
) -> pd.DataFrame:
    """Say which detectors find a concept that cannot be read off the model's input.

    A detector *passes* for a concept when its F1 on the validation clusters (1) is at least ``min_f1``, (2)
    is above what circular shifts of the labels give, at a false discovery rate of ``alpha`` over the concepts
    of its kind, and (3) exceeds by ``margin`` the F1 of every reader: detectors of the letters, markers and
    positions in the input, which know no model. A model with random weights passes for what it mixes from
    several letters, such as the composition of a window; it has not learnt anything.

    Parameters
    ----------
    baselines : DataFrame
        From :func:`compare_with_baselines`.
    readers : sequence of str
        Its kinds that need no model.
    alpha, min_f1, margin : float

    Returns
    -------
    DataFrame
        ``baselines`` with ``q_value`` (Benjamini-Hochberg over the concepts of a kind; NaN without a null),
        ``reader_f1`` (best of the readers; 0 without any) and ``passes`` (False for the readers themselves).
    """
    is_reader = baselines["kind"].isin(list(readers))
    best = baselines[is_reader].groupby("concept")["f1"].max()
    reader_f1 = baselines["concept"].map(best).fillna(0.0).to_numpy(dtype=np.float64)
    q = np.full(len(baselines), np.nan)
    for kind in baselines["kind"].unique():
        rows = np.flatnonzero(baselines["kind"] == kind)
        q[rows] = adjust(baselines["p_value"].to_numpy(dtype=np.float64)[rows])
    f1 = baselines["f1"].to_numpy(dtype=np.float64)
    passes = (f1 >= min_f1) & (q <= alpha) & (f1 > reader_f1 + margin) & ~is_reader.to_numpy()
    return baselines.assign(q_value=q, reader_f1=reader_f1, passes=passes)
