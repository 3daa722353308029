"""How much of the target's prediction a growing set of nodes brings about.

*Sufficiency* patches the k most important nodes into the source's run. *Necessity* starts fully patched and
gives the k most important ones back. With ``m`` the read-out, oriented towards the target, and sums over
pairs (single ratios explode)::

    faithfulness F(S) = sum (m(S) - m(0)) / sum (m(all) - m(0)),        completeness F(all minus S)

``m(all)`` has all features and errors of the chosen sites patched, so it is the same for every dictionary of
a site. CPR is the area under F against the share of nodes, CMD that of |1 - F| (MIB: Mueller et al. 2025,
arXiv:2504.13151).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from helix_sae.causal.experiment import Experiment
from helix_sae.causal.inference import DEFAULT_RESAMPLES, resampled_ratios
from helix_sae.causal.interventions import GroupOutcome, NodeSet, all_nodes, patched_outputs
from helix_sae.causal.terms import ERROR
from helix_sae.errors import ConfigurationError

CurveKind = Literal["sufficiency", "necessity"]

MIB_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of the nodes at which CPR and CMD are read."""


class Ranking(NamedTuple):
    """Nodes in descending importance.

    Attributes
    ----------
    sites : tuple of str
    widths : mapping of site to int
        Nodes of each site, its error node included.
    site : int64 (n_nodes,)
        Index into ``sites``.
    node : int64 (n_nodes,)
    score : float64 (n_nodes,)
    """

    sites: tuple[str, ...]
    widths: dict[str, int]
    site: Int[np.ndarray, " n_nodes"]
    node: Int[np.ndarray, " n_nodes"]
    score: Float[np.ndarray, " n_nodes"]

    def first(self, k: int) -> dict[str, np.ndarray]:
        """The k most important nodes as a set."""
        out = {site: np.zeros(self.widths[site], dtype=bool) for site in self.sites}
        for i, site in enumerate(self.sites):
            out[site][self.node[:k][self.site[:k] == i]] = True
        return out

    def without_first(self, k: int) -> dict[str, np.ndarray]:
        """Every node of every site, errors included, apart from the k most important."""
        return {site: ~chosen for site, chosen in self.first(k).items()}


def rank_nodes(scores: Mapping[str, Float[np.ndarray, " nodes"]], *, include_errors: bool = False) -> Ranking:
    """Sort nodes by descending score.

    Parameters
    ----------
    scores : mapping of site to float (features + 1,)
        E.g. of :func:`helix_sae.causal.inference.attribution`: with oriented effects the nodes that pull
        towards the target come first and those that pull away last.
    include_errors : bool
        Whether error nodes are ranked among the features. A dictionary's features are judged without.
    """
    sites = tuple(scores)
    parts = [
        (i, j, s)
        for i, site in enumerate(sites)
        for j, s in enumerate(scores[site][: None if include_errors else -1])
    ]
    site, node, score = (np.array(column) for column in zip(*parts, strict=True))
    order = np.argsort(-score, kind="stable")
    widths = {name: len(scores[name]) for name in sites}
    return Ranking(sites, widths, site[order], node[order], score[order].astype(np.float64))


def random_ranking(widths: Mapping[str, int], seed: int) -> Ranking:
    """All features in random order."""
    rng = np.random.default_rng(seed)
    return rank_nodes({site: rng.random(width) for site, width in widths.items()})


class Curve(NamedTuple):
    """Read-outs of all pairs along a curve.

    Attributes
    ----------
    kind : {"sufficiency", "necessity"}
    k : int64 (n_points,)
    n_nodes : int
        Nodes in the ranking.
    outcome : GroupOutcome
        One set a point.
    y_patched : float64 (n_pairs,)
        With everything at the sites patched, errors included.
    """

    kind: CurveKind
    k: Int[np.ndarray, " n_points"]
    n_nodes: int
    outcome: GroupOutcome
    y_patched: Float[np.ndarray, " n_pairs"]

    def sorted(self) -> Curve:
        """The same curve with ascending k, each once."""
        k, first = np.unique(self.k, return_index=True)
        return Curve(self.kind, k, self.n_nodes, self.outcome.of(first), self.y_patched)


def log_spaced(n_nodes: int, n_points: int = 20) -> Int[np.ndarray, " k"]:
    """0, and about ``n_points`` numbers of nodes from 1 to all, evenly spaced on a logarithmic scale."""
    return np.unique(np.concatenate([[0], np.geomspace(1, n_nodes, n_points).round()])).astype(np.int64)


def share_counts(n_nodes: int, shares: Sequence[float] = MIB_SHARES) -> Int[np.ndarray, " k"]:
    """Numbers of nodes at the given shares, rounded."""
    return np.array([round(share * n_nodes) for share in shares], dtype=np.int64)


def curves(
    exp: Experiment,
    ranking: Ranking,
    *,
    kinds: Sequence[CurveKind] = ("sufficiency", "necessity"),
    k: Sequence[int] | Int[np.ndarray, " n_points"] | None = None,
) -> dict[CurveKind, Curve]:
    """Run the pairs with growing sets of nodes.

    Parameters
    ----------
    exp : Experiment
    ranking : Ranking
        Nodes of one or several sites, jointly.
    kinds : sequence of {"sufficiency", "necessity"}
    k : sequence of int, optional
        Numbers of nodes; :func:`log_spaced` when absent. Numbers that round to the same are run once.
    """
    n_nodes = len(ranking.node)
    points = log_spaced(n_nodes) if k is None else np.asarray(k, dtype=np.int64)
    if points.min(initial=0) < 0 or points.max(initial=0) > n_nodes:
        raise ConfigurationError(f"A curve over {n_nodes} nodes cannot take {points.tolist()} of them.")
    unique, inverse = np.unique(points, return_inverse=True)
    make: dict[CurveKind, Callable[[int], dict[str, np.ndarray]]] = {
        "sufficiency": ranking.first,
        "necessity": ranking.without_first,
    }
    sets: list[NodeSet] = [make[kind](int(n)) for kind in kinds for n in unique]
    out = patched_outputs(exp.at(ranking.sites), [*sets, all_nodes(ranking.widths)])
    return {
        kind: Curve(kind, points, n_nodes, out.of(i * len(unique) + inverse), out.y[-1])
        for i, kind in enumerate(kinds)
    }


def faithfulness(outcome: GroupOutcome, y_all: Float[np.ndarray, " n_pairs"]) -> Float[np.ndarray, " n_sets"]:
    """``F`` of each set; see the module's head."""
    top, bottom = oriented_gains(outcome, y_all)
    return top.sum(axis=0) / bottom.sum(axis=0)


def oriented_gains(
    outcome: GroupOutcome, y_all: Float[np.ndarray, " n_pairs"]
) -> tuple[Float[np.ndarray, "n_pairs n_sets"], Float[np.ndarray, "n_pairs n_sets"]]:
    """Gain of each pair from the sets and from everything, oriented towards the target: the terms of ``F``."""
    sign = np.sign(outcome.y_target - outcome.y_source)
    top = ((outcome.y - outcome.y_source) * sign).T
    bottom = ((y_all - outcome.y_source) * sign)[:, None]
    return top, np.broadcast_to(bottom, top.shape)


def curve_table(
    found: Curve, clusters: np.ndarray, *, n_resamples: int = DEFAULT_RESAMPLES, seed: int = 0, **labels: Any
) -> pd.DataFrame:
    """One row a point, with cluster-bootstrap intervals.

    Returns
    -------
    DataFrame
        ``curve, k, share, faithfulness, low, high``; ``towards`` (share of pairs whose read-out moves towards
        the target's); ``divergence, divergence_low, divergence_high, edit_magnitude, n_pairs, n_clusters``
        and the labels given. For a necessity curve ``faithfulness`` is that of what is left, the completeness
        of the k nodes given back.
    """
    top, bottom = oriented_gains(found.outcome, found.y_patched)
    draws = resampled_ratios(top, bottom, clusters, n_resamples, seed)
    divergence = found.outcome.divergence.T
    spread = resampled_ratios(divergence, np.ones_like(divergence), clusters, n_resamples, seed)
    low, high = _interval(draws, len(found.k))
    divergence_low, divergence_high = _interval(spread, len(found.k))
    return pd.DataFrame(
        {
            **labels,
            "curve": found.kind,
            "k": found.k,
            "share": found.k / found.n_nodes,
            "faithfulness": faithfulness(found.outcome, found.y_patched),
            "low": low,
            "high": high,
            "towards": (top > 0).mean(axis=0),
            "divergence": divergence.mean(axis=0),
            "divergence_low": divergence_low,
            "divergence_high": divergence_high,
            "edit_magnitude": found.outcome.magnitude.mean(axis=1),
            "n_pairs": len(found.y_patched),
            "n_clusters": len(np.unique(clusters)),
        }
    )


def _interval(draws: Float[np.ndarray, "n columns"] | None, columns: int) -> Float[np.ndarray, "2 columns"]:
    if draws is None:
        return np.full((2, columns), np.nan)
    return np.quantile(draws, [0.025, 0.975], axis=0)


def area(share: Float[np.ndarray, " n"], value: Float[np.ndarray, "*draws n"]) -> Any:
    """Trapezoidal area under a curve over the share of nodes, as MIB computes it."""
    return np.trapezoid(value, share, axis=-1)


def ceilings(
    exp: Experiment,
    clusters: np.ndarray,
    *,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """What can be reached at all: everything of one site, and of all together, without and with the errors.

    Returns
    -------
    DataFrame
        ``site`` (``all`` for all together), ``nodes`` (``features``, ``error``, ``features and error``),
        ``recovered``: the share of the difference between the target's and the source's own predictions
        (ratio of sums), with ``low, high``; ``divergence``; ``edit_magnitude``.
    """
    widths = exp.widths
    groups = [*((site, {site: widths[site]}) for site in exp.sites), ("all", widths)]
    kinds = {"features": (True, False), "error": (False, True), "features and error": (True, True)}
    labels = [(site, name) for site, _ in groups for name in kinds]
    sets = [all_nodes(chosen, features=f, error=e) for _, chosen in groups for f, e in kinds.values()]
    out = patched_outputs(exp, sets)
    top, bottom = oriented_gains(out, out.y_target)
    low, high = _interval(resampled_ratios(top, bottom, clusters, n_resamples, seed), len(sets))
    return pd.DataFrame(
        {
            "site": [site for site, _ in labels],
            "nodes": [name for _, name in labels],
            "recovered": faithfulness(out, out.y_target),
            "low": low,
            "high": high,
            "divergence": out.divergence.mean(axis=1),
            "edit_magnitude": out.magnitude.mean(axis=1),
        }
    )


def circuit_quality(
    exp: Experiment,
    circuits: Mapping[float, NodeSet],
    clusters: np.ndarray,
    *,
    others: Mapping[str, Ranking] | None = None,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """What circuits bring about, and what happens without them, on pairs that they were not found on.

    Beside each circuit stands one of equally many nodes of every site drawn at random: what its size alone is
    worth; and the first of other rankings, as many in all.

    Parameters
    ----------
    exp : Experiment
    circuits : mapping of tau to NodeSet
    clusters : array of str (n_pairs,)
    others : mapping of name to Ranking, optional
        Rankings that stand beside the circuits, e.g. by learnt masks; found on other pairs too.

    Returns
    -------
    DataFrame
        One row a tau, ascending: ``tau, n_nodes``; ``faithfulness`` of the circuit, ``completeness``
        (faithfulness of all nodes but the circuit: near 0 when nothing of importance was left out) ``random``
        (faithfulness of as many random nodes) and a column for each of the others, each with
        ``*_low, *_high``; ``divergence``, ``edit_magnitude``, ``n_pairs``, ``n_clusters``.
    """
    rng = np.random.default_rng(seed)
    empty = {site: np.zeros(exp.width(site), dtype=bool) for site in exp.sites}
    taus = sorted(circuits)
    kept = [{**empty, **circuits[tau]} for tau in taus]
    without = [{site: ~chosen for site, chosen in nodes.items()} for nodes in kept]
    chance = [{site: rng.permutation(chosen) for site, chosen in nodes.items()} for nodes in kept]
    sizes = [sum(int(chosen.sum()) for chosen in nodes.values()) for nodes in kept]
    more = {name: [ranking.first(n) for n in sizes] for name, ranking in (others or {}).items()}
    sets = [*kept, *without, *chance, *(nodes for ranked in more.values() for nodes in ranked)]
    out = patched_outputs(exp, [*sets, all_nodes(exp.widths)])
    values = faithfulness(out, out.y[-1])
    top, bottom = oriented_gains(out, out.y[-1])
    low, high = _interval(resampled_ratios(top, bottom, clusters, n_resamples, seed), len(values))
    n = len(taus)
    columns: dict[str, Any] = {"tau": taus, "n_nodes": sizes}
    for i, name in enumerate(("faithfulness", "completeness", "random", *more)):
        part = slice(i * n, (i + 1) * n)
        columns |= {name: values[part], f"{name}_low": low[part], f"{name}_high": high[part]}
    return pd.DataFrame(
        columns
        | {
            "divergence": out.divergence[:n].mean(axis=1),
            "edit_magnitude": out.magnitude[:n].mean(axis=1),
            "n_pairs": len(exp.pairs),
            "n_clusters": len(np.unique(clusters)),
        }
    )


def minimality(exp: Experiment, nodes: NodeSet) -> pd.DataFrame:
    """What each node of a circuit adds to it: the drop of the mean oriented read-out when it alone is taken out.

    Returns
    -------
    DataFrame
        ``site, feature, contribution`` (share of the circuit's own gain), most needed first. A circuit is
        minimal when no contribution is near zero.
    """
    members = [(site, int(j)) for site, chosen in nodes.items() for j in np.flatnonzero(chosen)]
    if not members:
        raise ConfigurationError("The circuit has no node; nothing can be taken out of it.")
    sets: list[NodeSet] = [nodes]
    for site, j in members:
        reduced = {name: chosen.copy() for name, chosen in nodes.items()}
        reduced[site][j] = False
        sets.append(reduced)
    out = patched_outputs(exp.at(list(nodes)), sets)
    kept = faithfulness(out, out.y[0])
    table = pd.DataFrame(
        {
            "site": [site for site, _ in members],
            "feature": [ERROR if j == len(nodes[site]) - 1 else str(j) for site, j in members],
            "contribution": 1.0 - kept[1:],
        }
    )
    return table.sort_values("contribution", ascending=False, kind="stable", ignore_index=True)
