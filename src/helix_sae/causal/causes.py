"""Which feature carries which cause: single-feature effects by what was edited, each edit beside its sham.

A *cause* is a kind of edit: an upstream AUG made, a purine at -3 taken away, a decoy that only correlates. A
feature carries it when giving that feature alone the edited sequence's value moves the prediction more than
the same step for the sham does, over families on which nothing was chosen. All cells of the matrix (feature,
cause), decoys among them, are one family of tests.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import stats

from helix_sae.causal.curves import oriented_gains
from helix_sae.causal.effects import Effects
from helix_sae.causal.experiment import Experiment
from helix_sae.causal.inference import (
    DEFAULT_FLIPS,
    DEFAULT_RESAMPLES,
    bootstrap_means,
    bootstrap_ratios,
    sign_flip_p_values,
    signs_agree,
)
from helix_sae.causal.interventions import NodeSet, all_nodes
from helix_sae.errors import AnalysisError
from helix_sae.statistics.bootstrap import replication_rate
from helix_sae.statistics.multiple_testing import adjust

POWER = 0.8
"""Chance with which the stated smallest effect is seen."""
LEAST_FAMILIES = 5
"""Families below which a kind of edit is left out: a sign-flip test of four can say nothing at any level used here."""


class Contrasts(NamedTuple):
    """Effects of edits less those of their shams, oriented by the known difference where there is one.

    Attributes
    ----------
    pairs : DataFrame
        The edits (no shams): ``pair_id, kind, role, cluster, difference``, and ``row`` in the table they came
        from.
    nodes : list of (str, int)
        Site and feature of each column.
    values : float64 (n_edits, n_nodes)
        In units of the read-out.
    """

    pairs: pd.DataFrame
    nodes: list[tuple[str, int]]
    values: Float[np.ndarray, "n_edits n_nodes"]


def contrasts(found: Effects, pairs: pd.DataFrame) -> Contrasts:
    """Take from each edit's effects those of its sham.

    An edit without a sham (a decoy, a natural variant) stands by itself.

    Parameters
    ----------
    found : Effects
        Of the pairs; features that were left out (NaN) and the error nodes get no column.
    pairs : DataFrame
        In the order of ``found``, with ``pair_id``; the sham of ``x`` is called ``sham_x``.
    """
    place = {str(name): i for i, name in enumerate(pairs["pair_id"])}
    rows = np.flatnonzero(~pairs["is_sham"].to_numpy(dtype=bool))
    shams = np.array([place.get(f"sham_{name}", -1) for name in pairs["pair_id"].iloc[rows]], dtype=np.int64)
    difference = pairs["difference"].to_numpy(dtype=np.float64)[rows]
    turned = 1.0 if found.metadata["direction"] == "source_to_target" else -1.0
    sign = np.where(np.isfinite(difference) & (difference != 0.0), np.sign(difference), 1.0) * turned
    nodes: list[tuple[str, int]] = []
    columns: list[np.ndarray] = []
    for site, values in found.values.items():
        run = np.flatnonzero(np.isfinite(values[:, :-1]).all(axis=0))
        nodes += [(site, int(j)) for j in run]
        own = values[:, run].astype(np.float64)
        control = np.where((shams >= 0)[:, None], own[shams], 0.0)
        columns.append((own[rows] - control) * sign[:, None])
    kept = pairs.iloc[rows][["pair_id", "kind", "role", "cluster", "difference"]].reset_index(drop=True)
    return Contrasts(kept.assign(row=rows), nodes, np.concatenate(columns, axis=1))


def screen_by_cause(estimate: Contrasts, top: int) -> dict[str, Int[np.ndarray, " k"]]:
    """The ``top`` features of largest |mean contrast| for each kind of edit, all kinds together, by site.

    Parameters
    ----------
    estimate : Contrasts
        On discovery families.
    top : int
    """
    chosen: set[tuple[str, int]] = set()
    for _, part in estimate.pairs.groupby("kind"):
        size = np.abs(estimate.values[part.index.to_numpy()].mean(axis=0))
        best = np.argsort(-size, kind="stable")[:top]
        chosen |= {estimate.nodes[int(j)] for j in best if size[j] > 0}
    sites = dict.fromkeys(site for site, _ in estimate.nodes)
    return {site: np.array(sorted(j for s, j in chosen if s == site), dtype=np.int64) for site in sites}


def cause_matrix(
    measured: Contrasts,
    *,
    q: float = 0.05,
    n_resamples: int = DEFAULT_RESAMPLES,
    n_flips: int = DEFAULT_FLIPS,
    seed: int = 0,
) -> pd.DataFrame:
    """Test every feature for every cause, with Benjamini-Hochberg over all of them together.

    Parameters
    ----------
    measured : Contrasts
        Exact effects on validation families, of features that were chosen on others.
    q : float
        False discovery rate over the whole family (feature, cause).
    n_resamples, n_flips, seed
        Of the cluster bootstrap and the cluster sign-flip test.

    Returns
    -------
    DataFrame
        One row a cell: ``site, feature, kind, role``; ``n_pairs, n_clusters``; ``effect`` (mean contrast,
        units of the read-out, positive towards the known difference) with ``low, high`` (95 %);
        ``p_value, q_value``, ``confirmed``; ``detectable``: the mean that is seen with a chance of 80 % at
        the level that the procedure asked for.

    Raises
    ------
    AnalysisError
        If no kind of edit has families enough, or no feature was chosen.
    """
    parts: list[pd.DataFrame] = []
    spreads: list[np.ndarray] = []
    for kind, part in measured.pairs.groupby("kind", sort=False):
        clusters = part["cluster"].to_numpy(dtype=str)
        n_clusters = len(np.unique(clusters))
        if n_clusters < LEAST_FAMILIES or not measured.nodes:
            continue
        values = measured.values[part.index.to_numpy()]
        low, high = bootstrap_means(values, clusters, n_resamples=n_resamples, seed=seed)
        parts.append(
            pd.DataFrame(
                {
                    "site": [site for site, _ in measured.nodes],
                    "feature": [str(j) for _, j in measured.nodes],
                    "kind": kind,
                    "role": part["role"].iloc[0],
                    "n_pairs": len(part),
                    "n_clusters": n_clusters,
                    "effect": values.mean(axis=0),
                    "low": low,
                    "high": high,
                    "p_value": sign_flip_p_values(values, clusters, n_flips=n_flips, seed=seed),
                }
            )
        )
        spreads.append(_standard_errors(values, clusters))
    if not parts:
        raise AnalysisError(
            f"No kind of edit has {LEAST_FAMILIES} validation families and a feature that responds to it; "
            "give more sequences with a known start codon, or raise causal_acdc.causes.edits_per_kind."
        )
    table = pd.concat(parts, ignore_index=True)
    table["q_value"] = adjust(table["p_value"].to_numpy())
    table["confirmed"] = table["q_value"] <= q
    level = q * max(int(table["confirmed"].sum()), 1) / len(table)
    freedom = table["n_clusters"].to_numpy() - 1
    wanted = stats.t.ppf(1 - level / 2, freedom) + stats.t.ppf(POWER, freedom)
    return table.assign(detectable=wanted * np.concatenate(spreads))


def _standard_errors(
    values: Float[np.ndarray, "n nodes"], clusters: np.ndarray
) -> Float[np.ndarray, " nodes"]:
    """Of the column means, between families."""
    sums = pd.DataFrame(values).groupby(clusters).sum().to_numpy()
    return sums.std(axis=0, ddof=1) * np.sqrt(len(sums)) / len(values)


def cause_summary(
    exp: Experiment,
    measured: Contrasts,
    matrix: pd.DataFrame,
    found: Effects,
    *,
    certified: NodeSet | None = None,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """One row a cause: how well the model knows it, which features carry it, and how much of it.

    Parameters
    ----------
    exp : Experiment
        With the validation pairs that ``measured`` and ``found`` were computed on.
    measured : Contrasts
    matrix : DataFrame
        Of :func:`cause_matrix`.
    found : Effects
    certified : NodeSet, optional
        The certified features of all sites; absent where stability is not known.
    n_resamples, seed
        Of the cluster bootstrap.

    Returns
    -------
    DataFrame
        ``kind, role, n_pairs, n_clusters``; ``known`` and ``predicted`` (mean difference, the latter oriented
        by the former), ``sign_agreement`` of both; ``n_confirmed`` features, ``n_alone`` (confirmed for no
        other kind), ``n_certified`` of the confirmed ones that are certified (missing where that is not
        known), ``detectable`` (median over features) and the same as a share of ``|predicted|``;
        ``recovered`` (share of the predicted difference that patching the confirmed features together brings
        about, NaN without any), ``recovered_by_certified`` (all certified features, whatever they were
        confirmed for) and ``recovered_by_all`` (all features of all sites), each with ``*_low, *_high`` (95
        %, families resampled).
    """
    carried = matrix[matrix["confirmed"]].groupby(["site", "feature"])["kind"].nunique()
    predicted = found.y_target - found.y_source
    rows: list[dict[str, Any]] = []
    for kind, cells in matrix.groupby("kind", sort=False):
        own = measured.pairs[measured.pairs["kind"] == kind]
        at, known = own["row"].to_numpy(), own["difference"].to_numpy(dtype=np.float64)
        sign = np.where(np.isfinite(known) & (known != 0.0), np.sign(known), 1.0)
        mean = float((predicted[at] * sign).mean())
        confirmed = cells[cells["confirmed"]]
        alone = sum(int(carried[site, feature] == 1) for site, feature in _keys(confirmed))
        shares = _recovered(
            exp.on(at), confirmed, certified, own["cluster"].to_numpy(dtype=str), n_resamples, seed
        )
        detectable = float(cells["detectable"].median())
        agreed = signs_agree(predicted[at], known)
        rows.append(
            {
                "kind": kind,
                "role": cells["role"].iloc[0],
                "n_pairs": len(own),
                "n_clusters": int(cells["n_clusters"].iloc[0]),
                "known": float(np.abs(known).mean()) if np.isfinite(known).all() else np.nan,
                "predicted": mean,
                "sign_agreement": replication_rate(agreed)[0] if len(agreed) else np.nan,
                "n_tested": len(cells),
                "n_confirmed": len(confirmed),
                "n_alone": alone,
                "n_certified": pd.NA if certified is None else _n_certified(confirmed, certified),
                "detectable": detectable,
                "detectable_share": detectable / abs(mean) if mean else np.nan,
                **shares,
            }
        )
    return pd.DataFrame(rows).astype({"n_certified": "Int64"})


def _n_certified(cells: pd.DataFrame, certified: NodeSet) -> int:
    return sum(bool(certified[site][int(feature)]) for site, feature in _keys(cells))


def _keys(cells: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(cells["site"].astype(str), cells["feature"].astype(str), strict=True))


def _recovered(
    exp: Experiment,
    confirmed: pd.DataFrame,
    certified: NodeSet | None,
    clusters: np.ndarray,
    n_resamples: int,
    seed: int,
) -> dict[str, float]:
    """Share of the predicted difference that confirmed, certified and all features bring about, each together."""
    chosen = {site: np.zeros(width, dtype=bool) for site, width in exp.widths.items()}
    for site, feature in _keys(confirmed):
        chosen[site][int(feature)] = True
    sets = {"recovered": chosen, "recovered_by_all": all_nodes(exp.widths, error=False)}
    if certified is not None:
        sets["recovered_by_certified"] = dict(certified)
    out = exp.patched(list(sets.values()))
    gained, whole = oriented_gains(out, out.y_target)
    # A decoy may leave the prediction exactly as it was.
    total = whole.sum(axis=0)
    share = np.divide(gained.sum(axis=0), total, out=np.full(len(sets), np.nan), where=total != 0)
    low, high = bootstrap_ratios(gained, whole, clusters, n_resamples, seed=seed)
    found = dict.fromkeys(("recovered", "recovered_by_certified", "recovered_by_all"), (np.nan,) * 3)
    found |= dict(zip(sets, zip(share, low, high, strict=True), strict=True))
    if confirmed.empty:
        found["recovered"] = (np.nan,) * 3
    return {
        f"{name}{end}": float(value)
        for name, values in found.items()
        for end, value in zip(("", "_low", "_high"), values, strict=True)
    }


def contrast_table(measured: Contrasts) -> pd.DataFrame:
    """Contrasts as a table that can be kept: a row an edit, a column a node, named ``site/feature``."""
    names = [f"{site}/{feature}" for site, feature in measured.nodes]
    return pd.concat([measured.pairs, pd.DataFrame(measured.values, columns=names)], axis=1)


def contrasts_of(table: pd.DataFrame) -> Contrasts:
    """What :func:`contrast_table` made a table of: causes are permuted and tested anew without running the model."""
    names = [str(name) for name in table if "/" in str(name)]
    nodes = [(site, int(feature)) for site, feature in (name.rsplit("/", 1) for name in names)]
    return Contrasts(table.drop(columns=names), nodes, table[names].to_numpy(dtype=np.float64))


def permuted(measured: Contrasts, seed: int) -> Contrasts:
    """The same with edit and sham exchanged at random in whole families: nothing is left to be found."""
    rng = np.random.default_rng(seed)
    names, code = np.unique(measured.pairs["cluster"].to_numpy(dtype=str), return_inverse=True)
    flips = rng.choice([-1.0, 1.0], size=(len(names), measured.pairs["kind"].nunique()))
    kind = pd.factorize(measured.pairs["kind"])[0]
    return measured._replace(values=measured.values * flips[code, kind][:, None])


def kinds_by_what_changes(pairs: pd.DataFrame) -> pd.Series:
    """Name each pair after what its edit does to initiation, for variants that nobody designed.

    Parameters
    ----------
    pairs : DataFrame
        ``source_sequence, target_sequence, source_cds_start``. Where the start codon is not known, all of the
        sequence is taken as 5'UTR, as in a reporter assay of 5'UTRs.

    Returns
    -------
    Series of str
        ``uaug_make``, ``uaug_break`` (upstream AUGs gained or lost, not both), ``main_kozak_up``,
        ``main_kozak_down`` (a purine at -3 of the start codon gained or lost), ``gc_up``, ``gc_down`` (none
        of these, GC content changed), ``other``.
    """
    named = [
        _what_changes(str(a), str(b), None if pd.isna(start) else int(start))
        for a, b, start in zip(
            pairs["source_sequence"], pairs["target_sequence"], pairs["source_cds_start"], strict=True
        )
    ]
    return pd.Series(named, index=pairs.index, dtype=str)


def _what_changes(source: str, target: str, start: int | None) -> str:
    # Counted from the start codon, so that an insertion before it does not move what is compared.
    upstream = [s if start is None else s[: max(len(s) - (len(source) - start), 0)] for s in (source, target)]
    augs = [sum(s.startswith("AUG", i) for i in range(len(s))) for s in upstream]
    if augs[0] != augs[1]:
        return "uaug_make" if augs[1] > augs[0] else "uaug_break"
    if start is not None and start >= 3:
        purine = [len(s) >= 3 and s[-3] in "AG" for s in upstream]
        if purine[0] != purine[1]:
            return "main_kozak_up" if purine[1] else "main_kozak_down"
    gc = [sum(s.count(x) for x in "GC") / max(len(s), 1) for s in upstream]
    if gc[0] != gc[1]:
        return "gc_up" if gc[1] > gc[0] else "gc_down"
    return "other"


def families_enough(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs of those kinds that have families enough to be tested, shams with their edits."""
    counts = pairs[~pairs["is_sham"]].groupby("kind")["cluster"].nunique()
    kinds = counts.index[counts >= LEAST_FAMILIES]
    return pairs[pairs["kind"].isin(kinds)].reset_index(drop=True)
