"""Blocks, estimators and dictionaries set side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import stats

from helix_sae.causal.alignment import TokenPair
from helix_sae.causal.curves import (
    MIB_SHARES,
    Curve,
    CurveKind,
    Ranking,
    area,
    curve_table,
    curves,
    faithfulness,
    oriented_gains,
    random_ranking,
    rank_nodes,
    share_counts,
)
from helix_sae.causal.effects import Effects, effects_of_each, screen
from helix_sae.causal.experiment import Experiment
from helix_sae.causal.inference import (
    DEFAULT_RESAMPLES,
    Orientation,
    attribution,
    bootstrap_means,
    orientation,
    resampled_ratios,
    signs_agree,
)
from helix_sae.causal.terms import Dictionary
from helix_sae.errors import AnalysisError, ConfigurationError
from helix_sae.statistics.bootstrap import cluster_bootstrap, replication_rate

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Numbers of nodes at which dictionaries of different size are compared."""

_TOP = 20


EXACT = "exact"
"""The ranking by which dictionaries are compared: exact effects of the features that attribution patching chose."""


class Scored(NamedTuple):
    """Scores of nodes, and what they cost.

    Attributes
    ----------
    scores : mapping of site to float (features + 1,)
    passes : float
        Runs of a sequence for each pair; a backward run counts as two.
    """

    scores: Mapping[str, Float[np.ndarray, " nodes"]]
    passes: float


class Comparison(NamedTuple):
    """Dictionaries through the same machinery.

    Attributes
    ----------
    summary : DataFrame
        One row a dictionary and ranking: ``dictionary, ranking, n_nodes``; ``passes`` (runs of a sequence a
        pair that the ranking took, a backward run counted as two); ``cpr, cmd`` with ``*_low, *_high``;
        ``k_at_level`` (smallest k run whose faithfulness reaches ``level``; NA when none does); ``reached``
        (with all features); ``log_area`` (mean of ``1 - |1 - F|`` over the log-spaced numbers of nodes that
        all dictionaries have, the measure that does not depend on the size of a dictionary; overshooting
        counts like falling short) with its interval; and the reference minus this row, paired over the same
        resamples: ``lead`` in ``log_area``, ``cpr_lead``, ``cmd_lead``, with ``*_low, *_high``.
    curves : DataFrame
        :func:`helix_sae.causal.curves.curve_table` of each, sufficiency and necessity.
    """

    summary: pd.DataFrame
    curves: pd.DataFrame


def compare_dictionaries(
    exp: Experiment,
    candidates: Mapping[str, Mapping[str, Dictionary]],
    table: pd.DataFrame,
    *,
    reference: str = "sae",
    top: int = 24,
    rankings: Mapping[str, Scored] | None = None,
    spent: Mapping[str, float] | None = None,
    by: Orientation = "difference",
    counts: Sequence[int] = COUNTS,
    necessity: Literal["all", "reference", "none"] = "all",
    level: float = 0.8,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Rank the features of each dictionary on the discovery pairs and run its curves on the held-out ones.

    Every dictionary is ranked by the exact effects of its ``top`` features of each site, chosen by
    attribution patching. The reference is also ranked by the estimate alone (``atp``), by the size of its
    differences (``difference``), at random (``random``) and by the ``rankings`` given: what the ranking, not
    the dictionary, is worth.

    Parameters
    ----------
    exp : Experiment
        Its dictionaries are the reference: the trained autoencoders.
    candidates : mapping of name to (mapping of site to Dictionary)
        What they are held against, all over the same sites.
    table : DataFrame
        The pairs' table, in the order of the experiment's pairs.
    reference : str
        What the experiment's own dictionaries are called.
    top : int
        Features of each site that are run exactly for a ranking: the selection budget, equal for all.
    rankings : mapping of name to Scored, optional
        Further rankings of the reference, found on the discovery pairs, e.g. by
        :func:`helix_sae.causal.masks.learn_masks`.
    spent : mapping of name to float, optional
        Passes a pair that went into a candidate before it was ranked, as supervised subspaces take some.
    by : {"difference", "prediction"}
    counts : sequence of int
        Numbers of nodes, up to each dictionary's own.
    necessity : {"all", "reference", "none"}
        Whose necessity curves are run as well; those of the reference as it is ranked by exact effects.
    level : float
        Faithfulness whose number of nodes is reported.

    Raises
    ------
    ConfigurationError
        If the sites differ, or a candidate has the name of the reference.
    AnalysisError
        If one of the splits has no pair.
    """
    _check_candidates(exp, candidates, reference)
    discovery, held = ((table["split"] == side).to_numpy() for side in ("discovery", "validation"))
    if not discovery.any() or not held.any():
        raise AnalysisError(
            "Comparing dictionaries needs discovery and validation pairs; there are none on one side."
        )
    found_on, judged_on = exp.on(discovery), exp.on(held)
    known = table[discovery].reset_index(drop=True)
    everything = {reference: exp.dictionaries, **candidates}
    own_rankings = _own_rankings(found_on, everything, known, top, by)
    ranked: list[_Ranked] = []
    for name, own in own_rankings.items():
        first = own.pop(EXACT)
        ranked.append(
            _Ranked(name, EXACT, rank_nodes(first.scores), first.passes + (spent or {}).get(name, 0.0))
        )
        if name == reference:
            others = own | dict(rankings or {})
            ranked += [_Ranked(name, how, rank_nodes(s.scores), s.passes) for how, s in others.items()]
            ranked.append(_Ranked(name, "random", random_ranking(exp.widths, seed), 0.0))
    shared = [k for k in counts if k <= min(len(r.ranking.node) for r in ranked)]
    clusters = table["cluster"].to_numpy()[held]
    judged: list[_Judged] = []
    for r in ranked:
        points = np.concatenate([share_counts(len(r.ranking.node)), np.asarray(shared, dtype=np.int64)])
        kinds = _kinds(necessity, (r.dictionary, r.by) == (reference, EXACT))
        runs = curves(judged_on.using(everything[r.dictionary]), r.ranking, kinds=kinds, k=points)
        judged.append(_Judged(r, list(runs.values())))
    summary = _summary(judged, (reference, EXACT), clusters, shared, level, n_resamples, seed)
    tables = [
        curve_table(
            run.sorted(),
            clusters,
            n_resamples=n_resamples,
            seed=seed,
            dictionary=j.ranked.dictionary,
            ranking=j.ranked.by,
        )
        for j in judged
        for run in j.runs
    ]
    return Comparison(summary, pd.concat(tables, ignore_index=True))


class _Ranked(NamedTuple):
    """A dictionary in the order of one ranking, and the passes a pair that it took to find it."""

    dictionary: str
    by: str
    ranking: Ranking
    passes: float


def _own_rankings(
    exp: Experiment,
    candidates: Mapping[str, Mapping[str, Dictionary]],
    known: pd.DataFrame,
    top: int,
    by: Orientation,
) -> dict[str, dict[str, Scored]]:
    """Scores of each dictionary by exact effects of what the estimate chose, by the estimate alone, and by size."""
    estimates = effects_of_each(exp, candidates, "atp")
    # Errors are not ranked.
    nodes = {name: screen(atp, top, error=False) for name, atp in estimates.items()}
    measured = effects_of_each(exp, candidates, "exact", nodes=nodes)
    out: dict[str, dict[str, Scored]] = {}
    for name, atp in estimates.items():
        exact, signs = measured[name], orientation(atp, known, by)
        run = sum(
            int(((size > 0) & np.isfinite(exact.values[site])).sum())
            for site, size in exact.magnitude.items()
        )
        size = {site: m.mean(axis=0) for site, m in atp.magnitude.items()}
        # Both sides forwards and one of them backwards, which counts as two; an exact effect is a pass.
        out[name] = {
            EXACT: Scored(attribution(exact, signs), 4.0 + run / len(known)),
            "atp": Scored(attribution(atp, signs), 4.0),
            "difference": Scored(size, 2.0),
        }
    return out


class _Judged(NamedTuple):
    ranked: _Ranked
    runs: list[Curve]


def _kinds(necessity: str, is_reference: bool) -> tuple[CurveKind, ...]:
    both = necessity == "all" or (necessity == "reference" and is_reference)
    return ("sufficiency", "necessity") if both else ("sufficiency",)


def _check_candidates(
    exp: Experiment, candidates: Mapping[str, Mapping[str, Dictionary]], reference: str
) -> None:
    if reference in candidates:
        raise ConfigurationError(f"A candidate has the name of the reference, {reference!r}; rename it.")
    for name, dictionaries in candidates.items():
        if set(dictionaries) != set(exp.dictionaries):
            raise ConfigurationError(
                f"Dictionary {name!r} covers other sites than {reference!r}; fit it at all of them."
            )


def _summary(
    judged: Sequence[_Judged],
    reference: tuple[str, str],
    clusters: np.ndarray,
    shared: Sequence[int],
    level: float,
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """The measures of each sufficiency curve; one seed, hence the same resamples for all."""
    rows: list[dict[str, Any]] = []
    leads: dict[tuple[str, str], dict[str, _Draws]] = {}
    measures = {"cpr": _cpr, "cmd": _cmd, "log_area": _log_area}
    n_shares = len(MIB_SHARES)
    for j in judged:
        run = j.runs[0]
        values = faithfulness(run.outcome, run.y_patched)
        draws = resampled_ratios(*oriented_gains(run.outcome, run.y_patched), clusters, n_resamples, seed)
        name, how = j.ranked.dictionary, j.ranked.by
        row: dict[str, Any] = {"dictionary": name, "ranking": how, "n_nodes": run.n_nodes}
        row["passes"] = j.ranked.passes
        for m, measure in measures.items():
            low, high = (np.nan, np.nan) if draws is None else np.quantile(measure(draws), [0.025, 0.975])
            row |= {m: float(measure(values)), f"{m}_low": float(low), f"{m}_high": float(high)}
        reached = run.k[values >= level]
        row["k_at_level"] = int(reached.min()) if len(reached) else pd.NA
        row |= {
            "level": level,
            "reached": float(values[n_shares - 1]),
            "compared_at": ",".join(map(str, shared)),
        }
        leads[name, how] = {
            m: (row[m], None if draws is None else measure(draws)) for m, measure in measures.items()
        }
        rows.append(row)
    for row in rows:
        for name, column in {"log_area": "lead", "cpr": "cpr_lead", "cmd": "cmd_lead"}.items():
            row |= _lead(leads[reference][name], leads[row["dictionary"], row["ranking"]][name], column)
    return pd.DataFrame(rows).astype({"k_at_level": "Int64"})


def _cpr(f: Float[np.ndarray, "*draws k"]) -> Any:
    """Area under the curve at MIB's shares, which come first."""
    return area(np.asarray(MIB_SHARES), f[..., : len(MIB_SHARES)])


def _cmd(f: Float[np.ndarray, "*draws k"]) -> Any:
    return area(np.asarray(MIB_SHARES), np.abs(1.0 - f[..., : len(MIB_SHARES)]))


def _log_area(f: Float[np.ndarray, "*draws k"]) -> Any:
    """Mean closeness over the shared numbers of nodes, which come last and are evenly spaced on a logarithmic scale."""
    return (1.0 - np.abs(1.0 - f[..., len(MIB_SHARES) :])).mean(axis=-1)


_Draws = tuple[float, Float[np.ndarray, " n_resamples"] | None]
"""A measure and its resampled values."""


def _lead(reference: _Draws, other: _Draws, name: str) -> dict[str, float]:
    low, high = np.nan, np.nan
    if reference[1] is not None and other[1] is not None:
        low, high = np.quantile(reference[1] - other[1], [0.025, 0.975])
    return {name: reference[0] - other[0], f"{name}_low": float(low), f"{name}_high": float(high)}


def verdict(summary: pd.DataFrame, reference: str = "sae") -> list[str]:
    """Whether the reference beats each of the others, in words, whichever way it comes out."""
    words: list[str] = []
    for row in summary.itertuples(index=False):
        if (row.dictionary, row.ranking) == (reference, EXACT):
            continue
        other = (
            str(row.dictionary)
            if row.dictionary != reference
            else f"{reference} features ranked by {row.ranking}"
        )
        if not np.isfinite(row.lead_low):
            finding = "cannot be told apart from (too few families for an interval)"
        elif row.lead_low > 0:
            finding = "come closer to the full effect with as few nodes than"
        elif row.lead_high < 0:
            finding = "come less close to the full effect with as few nodes than"
        else:
            finding = "are not distinguishable from"
        words.append(
            f"{reference} features {finding} {other}: mean closeness 1 - |1 - F| differs by {row.lead:+.3f} "
            f"(95 % interval {row.lead_low:+.3f} to {row.lead_high:+.3f})."
        )
    return words


def estimator_agreement(
    exact: Effects,
    estimates: Mapping[str, Effects],
    signs: Float[np.ndarray, " n_pairs"],
    *,
    exact_patched: Effects | None = None,
    exact_reversed: Effects | None = None,
) -> pd.DataFrame:
    """How well cheap estimates stand in for exact effects, for each site.

    Nodes that were left out of the exact runs take no part; when some were, the comparison is within a
    screened set.

    Parameters
    ----------
    exact : Effects
        From the source.
    estimates : mapping of name to Effects
        ``atp`` is compared with ``exact``; ``ig`` with the mean of ``exact`` and ``exact_patched`` when that
        is given, for it estimates the joint contribution.
    signs : float (n_pairs,)
        See :func:`helix_sae.causal.inference.orientation`.
    exact_patched : Effects, optional
        ``start="patched"``.
    exact_reversed : Effects, optional
        Exact effects in the other direction, from the other sequence of each pair. A row
        ``exact, other direction`` says how well importance in one direction stands for importance in the
        other.

    Returns
    -------
    DataFrame
        ``site, estimator, against`` and, over nodes of mean oriented effects, ``spearman``, ``top_overlap``
        (share of the 20 largest in common), ``sign_agreement`` (among those 20 of exact); over (pair, node)
        ``pair_spearman``; ``n_nodes``, ``screened``, ``n_pairs``.
    """
    rows: list[dict[str, Any]] = []
    usable = np.isfinite(signs) & (signs != 0)
    compared = dict(estimates)
    if exact_reversed is not None:
        # Taking the target's value away again is the opposite change.
        turned = {site: -v for site, v in exact_reversed.values.items()}
        compared["exact, other direction"] = exact_reversed._replace(values=turned)
    for name, estimate in compared.items():
        for site in exact.sites:
            against, truth = "exact from source", exact.values[site].astype(np.float64)
            if name == "ig" and exact_patched is not None:
                against = "mean of exact from source and from patched"
                truth = 0.5 * (truth + exact_patched.values[site])
            rows.append(
                {"site": site, "estimator": name, "against": against}
                | _agreement(truth[usable], estimate.values[site][usable].astype(np.float64), signs[usable])
            )
    return pd.DataFrame(rows)


def _agreement(
    truth: Float[np.ndarray, "n nodes"], guess: Float[np.ndarray, "n nodes"], signs: Float[np.ndarray, " n"]
) -> dict[str, Any]:
    run = np.isfinite(truth).all(axis=0)
    active = run & ((truth != 0) | (guess != 0)).any(axis=0)
    t, g = truth[:, active], guess[:, active]
    mean_t, mean_g = (t * signs[:, None]).mean(axis=0), (g * signs[:, None]).mean(axis=0)
    top = min(_TOP, len(mean_t))
    best, guessed = (np.argsort(-np.abs(m), kind="stable")[:top] for m in (mean_t, mean_g))
    return {
        "spearman": _spearman(mean_t, mean_g),
        "top_overlap": len(np.intersect1d(best, guessed)) / top if top else float("nan"),
        "sign_agreement": float((np.sign(mean_t[best]) == np.sign(mean_g[best])).mean())
        if top
        else float("nan"),
        "pair_spearman": _spearman(t[(t != 0) | (g != 0)], g[(t != 0) | (g != 0)]),
        "n_nodes": int(active.sum()),
        "screened": bool((~run).any()),
        "n_pairs": len(truth),
    }


def compare_blocks(
    found: Effects,
    table: pd.DataFrame,
    ceilings: pd.DataFrame,
    *,
    by: Orientation = "difference",
    rows: Bool[np.ndarray, " n_pairs"] | None = None,
) -> pd.DataFrame:
    """One row a site: how much of the prediction goes through it, and through how many features.

    Parameters
    ----------
    found : Effects
        Of a method that reaches every node (atp or ig), or exact.
    table : DataFrame
        Pairs.
    ceilings : DataFrame
        Of :func:`helix_sae.causal.curves.ceilings`.
    rows : bool (n_pairs,), optional
        Pairs that take part.

    Returns
    -------
    DataFrame
        ``site``; ``n_nodes`` that differ; ``total_effect`` (sum over features of |mean oriented effect|) and
        its ``share`` over sites; ``error_effect``; ``effective_features`` (exponential of the entropy of the
        features' shares: over how many the effect is spread); ``top_feature`` and ``top_effect``;
        ``recovered`` by all features, ``recovered_with_error``, with intervals.
    """
    signs = orientation(found, table, by)
    scores = attribution(found, signs, rows)
    out: list[dict[str, Any]] = []
    for site, score in scores.items():
        size = np.abs(score[:-1])
        weight = size[size > 0] / size.sum() if size.sum() > 0 else np.zeros(0)
        best = int(np.argmax(size))
        out.append(
            {
                "site": site,
                "n_nodes": int((found.magnitude[site] > 0).any(axis=0).sum()),
                "total_effect": float(size.sum()),
                "error_effect": float(score[-1]),
                "effective_features": float(np.exp(-(weight * np.log(weight)).sum())) if len(weight) else 0.0,
                "top_feature": str(best),
                "top_effect": float(score[best]),
            }
            | _ceiling(ceilings, site, "features", "recovered")
            | _ceiling(ceilings, site, "features and error", "recovered_with_error")
        )
    blocks = pd.DataFrame(out)
    total = blocks["total_effect"].sum()
    blocks.insert(3, "share", blocks["total_effect"] / total if total > 0 else np.nan)
    return blocks.assign(estimator=found.metadata["estimator"], direction=found.metadata["direction"])


def _ceiling(ceilings: pd.DataFrame, site: str, nodes: str, name: str) -> dict[str, float]:
    row = ceilings[(ceilings["site"] == site) & (ceilings["nodes"] == nodes)].iloc[0]
    return {
        name: float(row["recovered"]),
        f"{name}_low": float(row["low"]),
        f"{name}_high": float(row["high"]),
    }


def prediction_agreement(
    predicted: Float[np.ndarray, " n_pairs"],
    table: pd.DataFrame,
    *,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Predicted against known differences of the pairs, by split, indels apart, shams left out.

    Parameters
    ----------
    predicted : float (n_pairs,)
        ``y_target - y_source``.
    table : DataFrame
        Pairs.

    Returns
    -------
    DataFrame
        ``split, has_indel, n_pairs, n_clusters, spearman, low, high`` (cluster bootstrap), ``pearson``,
        ``sign_agreement`` over those ``n_signed`` pairs whose known difference is not zero, as a decoy's is.
    """
    difference = table["difference"].to_numpy(dtype=np.float64)
    usable = np.isfinite(difference) & ~table["is_sham"].to_numpy(dtype=bool)
    columns = [
        "split",
        "has_indel",
        "n_pairs",
        "n_clusters",
        "spearman",
        "low",
        "high",
        "pearson",
        "n_signed",
        "sign_agreement",
    ]
    rows: list[dict[str, Any]] = []
    for (split, indel), part in table[usable].groupby(["split", "has_indel"]):
        index = part.index.to_numpy()
        x, y = predicted[index], difference[index]
        agrees = signs_agree(x, y)

        def correlation(drawn: Int[np.ndarray, " n"], x: np.ndarray = x, y: np.ndarray = y) -> float:
            return _spearman(x[drawn], y[drawn])

        interval = cluster_bootstrap(
            correlation, part["cluster"].to_numpy(), n_resamples=n_resamples, seed=seed
        )
        rows.append(
            {
                "split": split,
                "has_indel": bool(indel),
                "n_pairs": len(part),
                "n_clusters": interval.n_clusters,
                "spearman": interval.estimate,
                "low": interval.low,
                "high": interval.high,
                "pearson": float(np.corrcoef(x, y)[0, 1])
                if len(x) > 2 and x.std() > 0 < y.std()
                else float("nan"),
                "n_signed": len(agrees),
                "sign_agreement": replication_rate(agrees)[0],
            }
        )
    return pd.DataFrame(rows, columns=pd.Index(columns))


def by_edit_position(
    found: Effects,
    pairs: Sequence[TokenPair],
    table: pd.DataFrame,
    *,
    n_strata: int = 4,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Effects by how much of the sequence follows the first edit.

    Nothing before the edit changes in a causal model, so the pooled signal scales with what follows; strata
    keep a late edit from being read as an unimportant one.

    Returns
    -------
    DataFrame
        ``has_indel`` (pairs with insertions or deletions stand apart), ``stratum``;
        ``following_low, following_high`` (share of nucleotides from the first edit on); ``n_pairs``,
        ``n_clusters``; mean ``|predicted|`` and ``|known|`` difference; ``feature_effect`` (mean over pairs
        of the largest |effect| of a feature) with ``feature_effect_low, feature_effect_high`` (cluster
        bootstrap); ``spearman`` of predicted and known differences; ``difference_kind`` where all pairs have
        the same. Shams take no part.
    """
    following = np.array([_following(pair) for pair in pairs])
    largest = np.max([np.nanmax(np.abs(v[:, :-1]), axis=1) for v in found.values.values()], axis=0)
    turned = 1.0 if found.metadata["direction"] == "source_to_target" else -1.0
    predicted = found.y_target - found.y_source
    known = turned * table["difference"].to_numpy(dtype=np.float64)
    out: list[dict[str, Any]] = []
    sham, indel = (table[name].to_numpy(dtype=bool) for name in ("is_sham", "has_indel"))
    for with_indel in (False, True):
        chosen = ~sham & (indel == with_indel)
        for stratum, rows in enumerate(_strata(following, chosen, n_strata)):
            low, high = bootstrap_means(
                largest[rows, None], table["cluster"].to_numpy()[rows], n_resamples=n_resamples, seed=seed
            )
            both = rows & np.isfinite(known)
            out.append(
                {
                    "has_indel": with_indel,
                    "stratum": stratum,
                    "following_low": float(following[rows].min()),
                    "following_high": float(following[rows].max()),
                    "n_pairs": int(rows.sum()),
                    "n_clusters": table["cluster"][rows].nunique(),
                    "predicted": float(np.abs(predicted[rows]).mean()),
                    "known": float(np.abs(known[both]).mean()) if both.any() else float("nan"),
                    "feature_effect": float(largest[rows].mean()),
                    "feature_effect_low": float(low[0]),
                    "feature_effect_high": float(high[0]),
                    "spearman": _spearman(predicted[both], known[both]),
                }
            )
    strata = pd.DataFrame(out)
    kinds = table["difference_kind"].dropna().unique() if "difference_kind" in table else ()
    return strata.assign(difference_kind=kinds[0]) if len(kinds) == 1 else strata


def _strata(
    following: Float[np.ndarray, " n"], chosen: Bool[np.ndarray, " n"], n: int
) -> list[Bool[np.ndarray, " n"]]:
    """The chosen pairs in strata of about equal size, from late edits to early ones."""
    if not chosen.any():
        return []
    edges = np.unique(np.quantile(following[chosen], np.linspace(0, 1, n + 1)))
    stratum = np.clip(np.searchsorted(edges, following, side="right") - 1, 0, max(len(edges) - 2, 0))
    return [chosen & (stratum == s) for s in np.unique(stratum[chosen])]


def _following(pair: TokenPair) -> float:
    """Share of the source's nucleotides from the first difference on."""
    return float(pair.source.is_nucleotide[pair.first :].sum() / pair.source.is_nucleotide.sum())


def _spearman(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])
