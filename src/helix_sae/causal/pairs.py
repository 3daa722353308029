"""Source and target sequences: whose difference in prediction is to be explained.

A table of pairs has one row a pair: ``pair_id``; ``source_id, target_id``; for either side
``*_sequence, *_cds_start, *_cds_end``; ``cluster`` (unit of resampling) and ``split``; ``kind`` and
``is_sham``; ``edit_positions`` (in the source, 0-based), ``edit_distance``, ``has_indel``; ``difference``,
the property of the target minus that of the source, and ``difference_kind``: ``measured``, ``true`` (of
simulated sequences), ``expected`` (what the simulator's mechanism expects of others) or ``unknown`` (an edit
whose effect on the property nobody knows; its difference is missing).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Int
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from helix_sae.errors import AnalysisError, DataError

PAIR_COLUMNS = (
    "pair_id",
    "source_id",
    "target_id",
    "source_sequence",
    "target_sequence",
    "source_cds_start",
    "source_cds_end",
    "target_cds_start",
    "target_cds_end",
    "cluster",
    "kind",
    "role",
    "is_sham",
    "edit_positions",
    "edit_distance",
    "has_indel",
    "difference",
    "difference_kind",
    "split",
)

UNKNOWN = "unknown"
"""The ``difference_kind`` of edits that say nothing of the property: they are turned by what is predicted."""

_BLOCK = 512


class Pairs(NamedTuple):
    """Pairs, and those that were left out.

    Attributes
    ----------
    table : DataFrame
        Columns :data:`PAIR_COLUMNS`.
    exclusions : DataFrame
        ``source_id, target_id, reason``: every candidate that is not in the table, with the first reason that
        applied.
    """

    table: pd.DataFrame
    exclusions: pd.DataFrame

    def counts(self) -> pd.Series:
        """Number of exclusions by reason."""
        return self.exclusions["reason"].value_counts()


class PairBounds(NamedTuple):
    """What a pair has to fulfil.

    Attributes
    ----------
    num_sequence_pairs : int or None
        Largest number of pairs, drawn at random from those that qualify.
    min_target_diff : float
        Smallest absolute difference of the property.
    max_length_ratio : float
        Longer over shorter sequence.
    max_edit_distance : int
        Levenshtein distance.
    min_reads : float or None
        Smallest number of reads of either side; asks for a reads column.
    """

    num_sequence_pairs: int | None = 100
    min_target_diff: float = 0.0
    max_length_ratio: float = 1.2
    max_edit_distance: int = 10
    min_reads: float | None = None


def natural_pairs(
    table: pd.DataFrame,
    target: str,
    bounds: PairBounds,
    *,
    splits: pd.Series,
    reads: str | None = None,
    seed: int = 0,
) -> Pairs:
    """Near neighbours of the table by edit distance.

    Parameters
    ----------
    table : DataFrame
        An mRNA table: ``sequence_id, sequence, cds_start, cds_end, cluster`` and the target's column.
    target : str
        Column of the property.
    bounds : PairBounds
    splits : Series of str
        ``discovery`` or ``validation`` of each row, constant within a cluster.
    reads : str, optional
        Column with the depth of each measurement.
    seed : int
        For the draw when more pairs qualify than are wanted.

    Raises
    ------
    DataError
        If a column is missing.
    AnalysisError
        If no pair is left.
    """
    _need_columns(table, target, reads, bounds)
    candidates = np.array(list(neighbours(table["sequence"].tolist(), bounds)), dtype=np.int64).reshape(-1, 2)
    return _select(table, target, candidates, bounds, splits, reads, seed, kind="natural")


def named_pairs(
    table: pd.DataFrame,
    target: str,
    bounds: PairBounds,
    *,
    splits: pd.Series,
    parent: str = "mother",
    reads: str | None = None,
    seed: int = 0,
) -> Pairs:
    """Pairs that the table names: each row and the row that its ``parent`` column points to.

    Parameters
    ----------
    parent : str
        Column with the ``sequence_id`` of the wild type. A row that is its own parent, or has none, is no
        candidate.
    table, target, bounds, splits, reads, seed
        As in :func:`natural_pairs`.

    Raises
    ------
    DataError
        If a column is missing.
    AnalysisError
        If no pair is left.
    """
    _need_columns(table, target, reads, bounds, parent)
    row_of = {str(name): i for i, name in enumerate(table["sequence_id"])}
    named = table[parent].notna() & (table[parent].astype(str) != table["sequence_id"].astype(str))
    children = np.flatnonzero(named.to_numpy())
    parents = [row_of.get(str(p), -1) for p in table[parent].iloc[children]]
    known = np.array(parents, dtype=np.int64) >= 0
    candidates = np.stack([np.array(parents, dtype=np.int64)[known], children[known]], axis=1)
    orphans = pd.DataFrame(
        {
            "source_id": table[parent].astype(str).iloc[children[~known]].to_numpy(),
            "target_id": table["sequence_id"].astype(str).iloc[children[~known]].to_numpy(),
            "reason": f"{parent} not in the table",
        }
    )
    return _select(table, target, candidates, bounds, splits, reads, seed, kind=parent, before=orphans)


def designed_pairs(
    counterfactuals: pd.DataFrame,
    target: str,
    *,
    splits: pd.Series,
    kinds: Sequence[str] | None = None,
    num_sequence_pairs: int | None = None,
    difference_kind: Literal["true", "expected"] = "true",
    seed: int = 0,
) -> Pairs:
    """Pairs made by design, shams among them.

    Parameters
    ----------
    counterfactuals : DataFrame
        Of :func:`helix_sae.mrna.counterfactuals.counterfactual_pairs`: ``pair_id, kind, role`` (or
        ``is_sham``), ``source, target`` (or ``*_sequence``), ``family`` (or ``cluster``),
        ``cds_start, cds_end`` (or those of either side) and ``true_difference_<property>`` (or
        ``true_difference``).
    target : str
        Column of the property, e.g. ``functional_mrl``.
    splits : Series of str
        ``discovery`` or ``validation`` of each row.
    kinds : sequence of str, optional
        Only these kinds of edit.
    num_sequence_pairs : int, optional
        Largest number of pairs. Drawn at random, each kind and role in equal numbers as far as they go.
    difference_kind : {"true", "expected"}
        Whether the differences are those of simulated sequences, or what the mechanism expects of others. Of
        a property that the mechanism does not know nothing is expected: such pairs are kept, and their
        differences are ``unknown``.
    seed : int

    Raises
    ------
    DataError
        If a column is missing.
    AnalysisError
        If no pair is left.
    """
    is_known = {"true_difference", _difference_column(target)} & set(counterfactuals.columns)
    if difference_kind == "expected" and not is_known:
        counterfactuals = counterfactuals.assign(true_difference=np.nan)
    kind = difference_kind if difference_kind == "true" or is_known else UNKNOWN
    table = _designed_schema(counterfactuals, target, splits).assign(difference_kind=kind)
    left_out: list[pd.DataFrame] = []
    for reason, keep in (
        ("identical sequences", lambda t: t["edit_distance"] > 0),
        (
            f"{target} not defined for the pair",
            lambda t: t["difference"].notna() | (t["difference_kind"] == UNKNOWN),
        ),
        ("kind not asked for", lambda t: t["kind"].isin(kinds) if kinds is not None else t["kind"].notna()),
    ):
        mask = keep(table).to_numpy(dtype=bool)
        left_out.append(_exclusions(table[~mask], reason))
        table = table[mask]
    strata = (table["kind"].astype(str) + table["role"].astype(str)).to_numpy()
    chosen = _balanced_draw(strata, num_sequence_pairs, np.random.default_rng(seed))
    left_out.append(_exclusions(table.drop(table.index[chosen]), "beyond num_sequence_pairs"))
    table = table.iloc[chosen].reset_index(drop=True)
    exclusions = pd.concat(left_out, ignore_index=True)
    if table.empty:
        raise AnalysisError(f"No designed pair for {target!r} is left: {_in_words(exclusions)}.")
    return Pairs(table.loc[:, list(PAIR_COLUMNS)], exclusions)


def neighbours(sequences: Sequence[str], bounds: PairBounds) -> Iterator[tuple[int, int]]:
    """Index pairs ``i < j`` within the bounds on length and edit distance, identical sequences included.

    Sorted by length, so that only blocks whose lengths can match are compared; RapidFuzz stops each
    comparison at the cutoff.
    """
    lengths = np.array([len(s) for s in sequences], dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    ordered = [sequences[i] for i in order]
    sorted_lengths = lengths[order]
    limit = bounds.max_edit_distance
    for start in range(0, len(order), _BLOCK):
        stop = min(start + _BLOCK, len(order))
        longest = min(
            sorted_lengths[stop - 1] + limit, int(sorted_lengths[stop - 1] * bounds.max_length_ratio)
        )
        end = int(np.searchsorted(sorted_lengths, longest, side="right"))
        distance = cdist(
            ordered[start:stop], ordered[start:end], scorer=Levenshtein.distance, score_cutoff=limit
        )
        left, right = np.nonzero(distance <= limit)
        ratio_fits = sorted_lengths[start + right] <= bounds.max_length_ratio * sorted_lengths[start + left]
        for a, b in zip(left[ratio_fits], right[ratio_fits], strict=True):
            if a < b:
                i, j = int(order[start + a]), int(order[start + b])
                yield (i, j) if i < j else (j, i)


def _select(
    table: pd.DataFrame,
    target: str,
    candidates: Int[np.ndarray, "n 2"],
    bounds: PairBounds,
    splits: pd.Series,
    reads: str | None,
    seed: int,
    *,
    kind: str,
    before: pd.DataFrame | None = None,
) -> Pairs:
    """Apply the bounds one after the other, noting why each candidate left."""
    pairs = _pair_frame(table, target, candidates, splits, kind)
    pairs["reads"] = _least_reads(table, candidates, reads)
    rules = [
        ("identical sequences", lambda p: p["edit_distance"] > 0),
        (f"{target} missing", lambda p: p["difference"].notna()),
        ("longer than max_length_ratio allows", lambda p: p["length_ratio"] <= bounds.max_length_ratio),
        ("more edits than max_edit_distance", lambda p: p["edit_distance"] <= bounds.max_edit_distance),
        ("below min_target_diff", lambda p: p["difference"].abs() >= bounds.min_target_diff),
        ("straddles the split", lambda p: p["split"] != ""),
    ]
    if bounds.min_reads is not None:
        least = bounds.min_reads
        rules.append(("below min_reads", lambda p: p["reads"] >= least))
    left_out = [before] if before is not None else []
    for reason, keep in rules:
        mask = keep(pairs).to_numpy(dtype=bool) if len(pairs) else np.zeros(0, dtype=bool)
        left_out.append(_exclusions(pairs[~mask], reason))
        pairs = pairs[mask]
    chosen = _draw(len(pairs), bounds.num_sequence_pairs, np.random.default_rng(seed))
    left_out.append(_exclusions(pairs.drop(pairs.index[chosen]), "beyond num_sequence_pairs"))
    kept = pairs.iloc[chosen].reset_index(drop=True)
    exclusions = pd.concat(left_out, ignore_index=True)
    if kept.empty:
        raise AnalysisError(
            f"No pair for {target!r} is left ({_in_words(exclusions)}); loosen the bounds on pairs, or name "
            "pairs by a column."
        )
    kept["edit_positions"] = [
        edit_positions(a, b) for a, b in zip(kept["source_sequence"], kept["target_sequence"], strict=True)
    ]
    return Pairs(kept.loc[:, list(PAIR_COLUMNS)], exclusions)


def _pair_frame(
    table: pd.DataFrame, target: str, candidates: Int[np.ndarray, "n 2"], splits: pd.Series, kind: str
) -> pd.DataFrame:
    """The schema's columns for every candidate, apart from the positions of its edits."""
    source, target_rows = (table.iloc[candidates[:, side]].reset_index(drop=True) for side in (0, 1))
    lengths = np.stack([source["sequence"].str.len(), target_rows["sequence"].str.len()]).astype(float)
    sides = splits.to_numpy()[candidates]
    value = [pd.to_numeric(s[target], errors="coerce").astype("float64") for s in (source, target_rows)]
    distance = [
        Levenshtein.distance(a, b) for a, b in zip(source["sequence"], target_rows["sequence"], strict=True)
    ]
    return pd.DataFrame(
        {
            "pair_id": source["sequence_id"].astype(str) + ">" + target_rows["sequence_id"].astype(str),
            "source_id": source["sequence_id"].astype(str),
            "target_id": target_rows["sequence_id"].astype(str),
            "source_sequence": source["sequence"],
            "target_sequence": target_rows["sequence"],
            "source_cds_start": source["cds_start"].astype("Int64"),
            "source_cds_end": source["cds_end"].astype("Int64"),
            "target_cds_start": target_rows["cds_start"].astype("Int64"),
            "target_cds_end": target_rows["cds_end"].astype("Int64"),
            "cluster": _joint_clusters(table["cluster"].astype(str).to_numpy(), candidates),
            "kind": kind,
            "role": "effect",
            "is_sham": False,
            "edit_distance": np.array(distance, dtype=np.int64),
            "has_indel": lengths[0] != lengths[1],
            "length_ratio": lengths.max(axis=0) / lengths.min(axis=0),
            "difference": value[1] - value[0],
            "difference_kind": "measured",
            "split": np.where(sides[:, 0] == sides[:, 1], sides[:, 0], "")
            if len(sides)
            else np.zeros(0, dtype=str),
        }
    )


def _joint_clusters(clusters: np.ndarray, candidates: Int[np.ndarray, "n 2"]) -> np.ndarray:
    """Cluster of each pair: clusters that some pair joins count as one, named after the first."""
    names, code = np.unique(clusters, return_inverse=True)
    left, right = code[candidates[:, 0]], code[candidates[:, 1]]
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(len(names), len(names)))
    _, component = connected_components(graph, directed=False)
    first = np.full(int(component.max(initial=-1)) + 1, len(names), dtype=np.int64)
    np.minimum.at(first, component, np.arange(len(names)))
    return names[first[component[left]]] if len(left) else np.zeros(0, dtype=str)


def edit_positions(source: str, target: str) -> list[int]:
    """Positions of the source that differ: substituted or deleted nucleotides, and those before which one was inserted."""
    if len(source) == len(target):
        return [i for i, (a, b) in enumerate(zip(source, target, strict=True)) if a != b]
    return sorted({op.src_pos for op in Levenshtein.editops(source, target)})


def _least_reads(table: pd.DataFrame, candidates: Int[np.ndarray, "n 2"], reads: str | None) -> Any:
    if reads is None:
        return np.nan
    depth = pd.to_numeric(table[reads], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return depth[candidates].min(axis=1)


def _draw(n: int, wanted: int | None, rng: np.random.Generator) -> Int[np.ndarray, " k"]:
    if wanted is None or n <= wanted:
        return np.arange(n)
    return np.sort(rng.permutation(n)[:wanted])


def _balanced_draw(kinds: np.ndarray, wanted: int | None, rng: np.random.Generator) -> Int[np.ndarray, " k"]:
    """Random rows, taken in turn from each kind."""
    if wanted is None or len(kinds) <= wanted:
        return np.arange(len(kinds))
    order = rng.permutation(len(kinds))
    turn = pd.Series(kinds[order]).groupby(kinds[order]).cumcount().to_numpy()
    return np.sort(order[np.argsort(turn, kind="stable")[:wanted]])


def _difference_column(target: str) -> str:
    """Column of a property's differences in a table of counterfactuals."""
    return "true_difference_" + target.removeprefix("functional_")


def _designed_schema(counterfactuals: pd.DataFrame, target: str, splits: pd.Series) -> pd.DataFrame:
    """Fill the schema's columns from what a table of counterfactuals has."""
    table = counterfactuals.reset_index(drop=True).copy()
    short = _difference_column(target)
    for name, others in {
        "source_sequence": ("source",),
        "target_sequence": ("target",),
        "cluster": ("family",),
        "source_cds_start": ("cds_start",),
        "target_cds_start": ("cds_start",),
        "source_cds_end": ("cds_end",),
        "target_cds_end": ("cds_end",),
        "true_difference": (short,),
    }.items():
        found = [other for other in (name, *others) if other in table]
        if found:
            table[name] = table[found[0]]
    if "role" not in table and "is_sham" in table:
        table["role"] = np.where(table["is_sham"].astype(bool), "sham", "effect")
    needed = [
        "source_sequence",
        "target_sequence",
        "kind",
        "role",
        "cluster",
        "source_cds_start",
        "true_difference",
    ]
    missing = [name for name in needed if name not in table]
    if missing:
        raise DataError(
            f"The table of counterfactuals lacks {', '.join(missing)} for {target!r}; it has "
            f"{list(table.columns)}."
        )
    return _complete(table).assign(split=splits.to_numpy())


def _complete(table: pd.DataFrame) -> pd.DataFrame:
    """What follows from the columns that are there."""
    if "pair_id" not in table:
        table["pair_id"] = "design" + table.index.astype(str)
    for side in ("source", "target"):
        if f"{side}_id" not in table:
            table[f"{side}_id"] = table["pair_id"].astype(str) + ":" + side
        for name in ("cds_start", "cds_end"):
            column = f"{side}_{name}"
            table[column] = (
                table[column].astype("Int64") if column in table else pd.array([pd.NA] * len(table), "Int64")
            )
    sequences = list(zip(table["source_sequence"], table["target_sequence"], strict=True))
    return table.assign(
        edit_positions=[edit_positions(a, b) for a, b in sequences],
        edit_distance=[Levenshtein.distance(a, b) for a, b in sequences],
        has_indel=[len(a) != len(b) for a, b in sequences],
        difference=table["true_difference"].astype("float64"),
        is_sham=(table["role"] == "sham").to_numpy(),
        cluster=table["cluster"].astype(str),
    )


def _need_columns(
    table: pd.DataFrame, target: str, reads: str | None, bounds: PairBounds, parent: str | None = None
) -> None:
    if bounds.min_reads is not None and reads is None:
        raise DataError(
            "min_reads is set, but no column with reads is named; name one or leave min_reads out."
        )
    wanted = ["sequence_id", "sequence", "cds_start", "cds_end", "cluster", target]
    wanted += [name for name in (reads, parent) if name is not None]
    missing = [name for name in wanted if name not in table]
    if missing:
        known = [c for c in table if str(c).startswith(("functional_", "structural_", "regulatory_"))]
        raise AnalysisError(
            f"The table of sequences has no column {', '.join(map(repr, missing))}; its properties are "
            f"{', '.join(map(str, known)) or 'none'}. Name one of them, or map the file's column at "
            "ingestion."
        )


def _exclusions(pairs: pd.DataFrame, reason: str) -> pd.DataFrame:
    out = pairs.loc[:, ["source_id", "target_id"]].astype(str).reset_index(drop=True)
    return out.assign(reason=reason)


def _in_words(exclusions: pd.DataFrame) -> str:
    counts = exclusions["reason"].value_counts()
    return (
        "; ".join(f"{n} {reason}" for reason, n in counts.items())
        if len(counts)
        else "there was no candidate"
    )
