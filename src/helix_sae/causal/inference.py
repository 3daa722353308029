"""What the effects say about a population of pairs: tests, intervals and selection that respect families.

The unit is the pair, and pairs of one parent count together. An effect is *oriented*: multiplied by the sign
of the difference that the pair is known to have (measured, or true by design), so that a positive mean says
that giving a feature the target's value moves the prediction the way the phenotype goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import stats

from helix_sae.causal.effects import Effects, stamp
from helix_sae.causal.pairs import UNKNOWN
from helix_sae.causal.terms import ERROR
from helix_sae.errors import AnalysisError
from helix_sae.statistics.bootstrap import cluster_weights, replication_rate
from helix_sae.statistics.multiple_testing import adjust

Orientation = Literal["difference", "prediction"]
"""By the known difference of the pair, or by that of the model's own predictions."""

_STAMPED = ("estimator", "direction", "positions", "error_handling", "model", "dictionary_hash", "start")

DEFAULT_RESAMPLES = 2000
DEFAULT_FLIPS = 10_000


class Selection(NamedTuple):
    """Nodes chosen on one half of the families and tested on the other.

    Attributes
    ----------
    table : DataFrame
        The table of :func:`effects_table` for both splits side by side (``discovery_*`` and ``validation_*``
        columns), with ``selected`` (tested on the held-out families), ``p_value`` and ``q_value`` of that
        test, ``confirmed``.
    """

    table: pd.DataFrame

    def confirmed(self) -> pd.DataFrame:
        """Nodes that held up, largest held-out effect first."""
        rows = self.table[self.table["confirmed"]]
        return rows.sort_values("validation_oriented", key=np.abs, ascending=False, ignore_index=True)


def orientation(
    found: Effects, pairs: pd.DataFrame, by: Orientation = "difference"
) -> Float[np.ndarray, " n_pairs"]:
    """+1 or -1 for each pair in the direction that was run; 0 where the difference is zero (a sham), NaN where missing.

    Pairs whose ``difference_kind`` is ``unknown`` are turned by their predictions, and their shams take no
    part.
    """
    predicted = np.sign(found.y_target - found.y_source)
    if by == "prediction":
        return predicted
    turned = 1.0 if found.metadata["direction"] == "source_to_target" else -1.0
    signs = turned * np.sign(pairs["difference"].to_numpy(dtype=np.float64))
    if "difference_kind" not in pairs:
        return signs
    is_unknown = (pairs["difference_kind"] == UNKNOWN).to_numpy()
    return np.where(is_unknown, np.where(pairs["is_sham"].to_numpy(dtype=bool), 0.0, predicted), signs)


def attribution(
    found: Effects, signs: Float[np.ndarray, " n_pairs"], rows: Bool[np.ndarray, " n_pairs"] | None = None
) -> dict[str, Float[np.ndarray, " nodes"]]:
    """Mean oriented effect of every node: the importance by which nodes are ranked. Nodes left out (NaN) count as 0.

    Parameters
    ----------
    found : Effects
    signs : float (n_pairs,)
        See :func:`orientation`; pairs of unknown or no difference take no part.
    rows : bool (n_pairs,), optional
        Pairs to rank on.
    """
    used = np.isfinite(signs) & (signs != 0)
    used = used if rows is None else used & rows
    if not used.any():
        raise AnalysisError("No pair with a known difference is left to rank nodes on; see the exclusions.")
    return {
        site: np.nan_to_num((v[used] * signs[used, None]).mean(axis=0)) for site, v in found.values.items()
    }


def effects_table(
    found: Effects,
    pairs: pd.DataFrame,
    *,
    rows: Bool[np.ndarray, " n_pairs"] | None = None,
    by: Orientation = "difference",
    n_resamples: int = DEFAULT_RESAMPLES,
    n_flips: int = DEFAULT_FLIPS,
    seed: int = 0,
) -> pd.DataFrame:
    """One row a node.

    Parameters
    ----------
    found : Effects
    pairs : DataFrame
        The table that ``found`` was computed on (:mod:`helix_sae.causal.pairs`).
    rows : bool (n_pairs,), optional
        Pairs that take part; shams and pairs of unknown difference never do.
    by : {"difference", "prediction"}
        What orients an effect.
    n_resamples, n_flips, seed
        Of the cluster bootstrap and the cluster sign-flip test.

    Returns
    -------
    DataFrame
        ``site, feature`` (index or ``error``), ``n_pairs`` and ``n_clusters`` in which the node differs,
        ``effect`` (mean), ``absolute`` (mean of magnitudes), ``oriented`` with ``low, high`` (95 % cluster
        bootstrap), ``distance_change`` (mean of ``|y'_A - y_B| - |y_A - y_B|``), ``magnitude`` (mean norm of
        the change), ``p_value`` (two-sided cluster sign flip), ``start`` and the columns of
        :func:`helix_sae.causal.effects.stamp`. Nodes that never differ are left out.
    """
    signs = orientation(found, pairs, by)
    used = np.isfinite(signs) & (signs != 0)
    used = used if rows is None else used & rows
    if not used.any():
        raise AnalysisError("No pair with a known difference takes part; see the exclusions.")
    clusters = pairs["cluster"].to_numpy()[used]
    parts = [
        _site_rows(found, site, used, signs[used], clusters, n_resamples, n_flips, seed)
        for site in found.sites
    ]
    table = pd.concat(parts, ignore_index=True)
    return stamp(table, found.metadata, start=found.metadata["start"])


def _site_rows(
    found: Effects,
    site: str,
    used: Bool[np.ndarray, " n_pairs"],
    signs: Float[np.ndarray, " n"],
    clusters: np.ndarray,
    n_resamples: int,
    n_flips: int,
    seed: int,
) -> pd.DataFrame:
    values = found.values[site][used].astype(np.float64)
    differs = found.magnitude[site][used] > 0
    nodes = np.flatnonzero(np.isfinite(values).all(axis=0) & differs.any(axis=0))
    values, differs = values[:, nodes], differs[:, nodes]
    oriented = values * signs[:, None]
    low, high = bootstrap_means(oriented, clusters, n_resamples=n_resamples, seed=seed)
    gap = (found.y_source - found.y_target)[used, None]
    _, code = np.unique(clusters, return_inverse=True)
    touched = np.zeros((code.max() + 1, len(nodes)), dtype=bool)
    np.logical_or.at(touched, code, differs)
    n_features = found.values[site].shape[1] - 1
    return pd.DataFrame(
        {
            "site": site,
            "feature": [ERROR if j == n_features else str(j) for j in nodes],
            "n_pairs": differs.sum(axis=0),
            "n_clusters": touched.sum(axis=0),
            "effect": values.mean(axis=0),
            "absolute": np.abs(values).mean(axis=0),
            "oriented": oriented.mean(axis=0),
            "low": low,
            "high": high,
            "distance_change": (np.abs(gap + values) - np.abs(gap)).mean(axis=0),
            "magnitude": found.magnitude[site][used][:, nodes].mean(axis=0),
            "p_value": sign_flip_p_values(oriented, clusters, n_flips=n_flips, seed=seed),
        }
    )


def sign_flip_p_values(
    values: Float[np.ndarray, "n_pairs nodes"],
    clusters: np.ndarray,
    *,
    n_flips: int = DEFAULT_FLIPS,
    seed: int = 0,
) -> Float[np.ndarray, " nodes"]:
    """Two-sided p-value of every column being symmetric about zero, flipping whole clusters; all columns at once.

    Exact when all sign patterns are at most ``n_flips``; else the observed pattern is counted in
    (:func:`helix_sae.statistics.bootstrap.sign_flip_test` is the same test for one column).
    """
    sums = _cluster_sums(values, clusters)
    n = len(sums)
    exhaustive = n < 63 and 2**n <= n_flips
    if exhaustive:
        patterns = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)[None, :]) & 1)
    else:
        patterns = np.random.default_rng(seed).choice([-1.0, 1.0], size=(n_flips, n))
    slack = 1e-12 * np.abs(sums).sum(axis=0)
    extreme = (np.abs(patterns @ sums) >= np.abs(sums.sum(axis=0)) - slack).sum(axis=0)
    return extreme / len(patterns) if exhaustive else (extreme + 1) / (len(patterns) + 1)


def bootstrap_means(
    values: Float[np.ndarray, "n_pairs nodes"],
    clusters: np.ndarray,
    *,
    n_resamples: int = DEFAULT_RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Float[np.ndarray, " nodes"], Float[np.ndarray, " nodes"]]:
    """Percentile intervals of column means, resampling clusters; NaN when there are fewer than two."""
    return bootstrap_ratios(values, np.ones_like(values), clusters, n_resamples, confidence, seed)


def bootstrap_ratios(
    numerator: Float[np.ndarray, "n_pairs columns"],
    denominator: Float[np.ndarray, "n_pairs columns"],
    clusters: np.ndarray,
    n_resamples: int = DEFAULT_RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Float[np.ndarray, " columns"], Float[np.ndarray, " columns"]]:
    """Percentile intervals of column-wise ratios of sums, resampling clusters; NaN when there are fewer than two."""
    draws = resampled_ratios(numerator, denominator, clusters, n_resamples, seed)
    if draws is None:
        empty = np.full(numerator.shape[1], np.nan)
        return empty, empty.copy()
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    return low, high


def resampled_ratios(
    numerator: Float[np.ndarray, "n_pairs columns"],
    denominator: Float[np.ndarray, "n_pairs columns"],
    clusters: np.ndarray,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> Float[np.ndarray, "n_resamples columns"] | None:
    """The resampled ratios themselves; None when there are fewer than two clusters."""
    top, bottom = _cluster_sums(numerator, clusters), _cluster_sums(denominator, clusters)
    if len(top) < 2:
        return None
    weights = cluster_weights(np.arange(len(top)), n_resamples, np.random.default_rng(seed)).T.astype(
        np.float64
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return (weights @ top) / (weights @ bottom)


def _cluster_sums(
    values: Float[np.ndarray, "n_pairs columns"], clusters: np.ndarray
) -> Float[np.ndarray, "n columns"]:
    _, code = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    sums = np.zeros((int(code.max()) + 1, values.shape[1]))
    np.add.at(sums, code, values)
    return sums


def select_and_test(
    found: Effects,
    pairs: pd.DataFrame,
    *,
    top: int = 50,
    q: float = 0.05,
    by: Orientation = "difference",
    n_resamples: int = DEFAULT_RESAMPLES,
    n_flips: int = DEFAULT_FLIPS,
    seed: int = 0,
) -> Selection:
    """Choose nodes on the discovery pairs, test them on held-out families with Benjamini-Hochberg.

    Parameters
    ----------
    found, pairs, by, n_resamples, n_flips, seed
        As in :func:`effects_table`; ``pairs["split"]`` says which pair is ``discovery`` and which
        ``validation``.
    top : int
        Nodes of largest |mean oriented effect| on the discovery pairs, over all sites, that are tested.
    q : float
        False discovery rate among the tested.
    """
    halves = {
        side: effects_table(
            found,
            pairs,
            rows=(pairs["split"] == side).to_numpy(),
            by=by,
            n_resamples=n_resamples,
            n_flips=n_flips,
            seed=seed,
        )
        for side in ("discovery", "validation")
    }
    keys = ["site", "feature"]
    shared = [*keys, *_STAMPED]
    left, right = (
        table.rename(columns={c: f"{side}_{c}" for c in table if c not in shared})
        for side, table in halves.items()
    )
    table = left.merge(right.drop(columns=[c for c in shared if c not in keys]), on=keys, how="left")
    order = table["discovery_oriented"].abs().sort_values(ascending=False, kind="stable").index[:top]
    table["selected"] = table.index.isin(order)
    # A chosen node that never differs among the held-out pairs has no evidence for it there.
    p = table["validation_p_value"].fillna(1.0).where(table["selected"])
    table["p_value"], table["q_value"] = p, adjust(p.to_numpy())
    same_sign = np.sign(table["discovery_oriented"]) == np.sign(table["validation_oriented"])
    table["confirmed"] = table["selected"] & (table["q_value"] <= q) & same_sign
    ranked = table.reindex(
        table["discovery_oriented"].abs().sort_values(ascending=False, kind="stable").index
    )
    return Selection(ranked.reset_index(drop=True))


def designed_against_sham(
    found: Effects, pairs: pd.DataFrame, nodes: Mapping[str, Int[np.ndarray, " k"]] | None = None
) -> pd.DataFrame:
    """How much the nodes of each pair do together, to set edits beside their shams.

    Parameters
    ----------
    found, pairs
        See :func:`effects_table`.
    nodes : mapping of site to indices, optional
        Nodes to sum over; all features when absent. Nodes that were left out of exact runs count as 0.

    Returns
    -------
    DataFrame
        ``pair_id, kind, role, is_sham, cluster, split, difference_kind``; ``total_effect``, the sum of
        |effect| over nodes; ``largest_effect``; ``predicted_difference`` and ``difference``, both in the
        direction that was run.
    """
    columns: list[Float[np.ndarray, "n_pairs k"]] = []
    for site, values in found.values.items():
        chosen = (
            np.arange(values.shape[1] - 1) if nodes is None else nodes.get(site, np.zeros(0, dtype=np.int64))
        )
        columns.append(np.abs(np.nan_to_num(values[:, chosen])))
    sizes = np.concatenate(columns, axis=1)
    told = ["pair_id", "kind", "role", "is_sham", "cluster", "split", "difference_kind"]
    out = pairs[[name for name in told if name in pairs]].reset_index(drop=True)
    turned = 1.0 if found.metadata["direction"] == "source_to_target" else -1.0
    return out.assign(
        total_effect=sizes.sum(axis=1),
        largest_effect=sizes.max(axis=1, initial=0.0),
        predicted_difference=found.y_target - found.y_source,
        difference=turned * pairs["difference"].to_numpy(dtype=np.float64),
    )


MADE_OR_BROKEN = "uaug_make or uaug_break"
"""The two kinds of edit that make or break an upstream AUG, taken together."""


def designed_test(designed: pd.DataFrame, *, measure: str = "total_effect") -> pd.DataFrame:
    """Whether edits are felt more than their shams, and move the prediction the way they should.

    Parameters
    ----------
    designed : DataFrame
        Of :func:`designed_against_sham`.
    measure : str
        Column compared: ``total_effect``, ``largest_effect``.

    Returns
    -------
    DataFrame
        One row for each split (``all`` too) and kind (:data:`MADE_OR_BROKEN` too): ``n, n_sham``,
        ``median, median_sham``, ``p_value`` (one-sided Mann-Whitney, edits larger; NaN when there are no
        shams), ``auc``, ``sign_agreement`` of predicted and known differences with ``sign_low, sign_high``
        (Wilson). Decoys stand in the place of edits under their own kind.
    """
    rows: list[dict[str, Any]] = []
    upstream = designed["kind"].isin(["uaug_make", "uaug_break"])
    for split in ("all", *sorted(designed["split"].unique())):
        in_split = (designed["split"] == split) | (split == "all")
        groups = {str(kind): designed["kind"] == kind for kind in sorted(designed["kind"].unique())}
        if upstream.any():
            groups = {MADE_OR_BROKEN: upstream} | groups
        for kind, members in groups.items():
            part = designed[in_split & members]
            if len(part):
                rows.append({"split": split, "kind": kind} | _against_sham(part, measure))
    return pd.DataFrame(rows)


def _against_sham(part: pd.DataFrame, measure: str) -> dict[str, Any]:
    edits, shams = part[~part["is_sham"]], part[part["is_sham"]]
    x, y = edits[measure].to_numpy(dtype=np.float64), shams[measure].to_numpy(dtype=np.float64)
    row: dict[str, Any] = {
        "n": len(x),
        "n_sham": len(y),
        "median": float(np.median(x)) if len(x) else np.nan,
        "median_sham": float(np.median(y)) if len(y) else np.nan,
        "p_value": np.nan,
        "auc": np.nan,
    }
    if len(x) and len(y):
        test = stats.mannwhitneyu(x, y, alternative="greater")
        row |= {"p_value": float(test.pvalue), "auc": float(test.statistic) / (len(x) * len(y))}
    predicted, known = (edits[c].to_numpy(dtype=np.float64) for c in ("predicted_difference", "difference"))
    rate, low, high = replication_rate(signs_agree(predicted, known))
    return row | {"sign_agreement": rate, "sign_low": low, "sign_high": high}


def signs_agree(
    predicted: Float[np.ndarray, " n_pairs"], known: Float[np.ndarray, " n_pairs"]
) -> Bool[np.ndarray, " n_signed"]:
    """Whether two differences have one sign, for the pairs whose known one is there and is not zero, as a decoy's is."""
    has_sign = np.isfinite(known) & (known != 0.0)
    return np.sign(predicted[has_sign]) == np.sign(known[has_sign])
