"""Automatic circuit discovery over features (Conmy et al. 2023, arXiv:2304.14997; Cunningham et al. 2023, arXiv:2309.08600).

Every node of every site, features and errors, starts out patched from source to target. Blocks are visited
from the last to the first, inside a block in ascending order of |attribution| (or at random), and a node is
taken out when the divergence from the target's read-out grows by less than tau. The survivors of one tau are
where the next, larger one starts, so the circuits are nested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from helix_sae.causal.batches import STEPWISE_PADDING, encode, pair_batches
from helix_sae.causal.experiment import Experiment
from helix_sae.causal.interventions import BatchRun, NodeSet, all_nodes, check_nodes
from helix_sae.causal.terms import ERROR
from helix_sae.errors import ConfigurationError

Screening = Literal["none", "halving"]
"""One node at a time; or whole blocks first, halved until they can go. The second is a screening and is labelled so."""


class Acdc(NamedTuple):
    """Circuits of a sweep over tau.

    Attributes
    ----------
    steps : DataFrame
        One row for the start and one a removal, in order: ``order`` (``attribution``, ``random_0``, ...),
        ``tau``, ``step``, ``site`` and ``n_removed`` of the nodes that went, ``n_nodes`` left,
        ``divergence``, ``edit_magnitude`` (recomputed on what is left), ``screening``, ``n_passes`` (runs
        over all pairs so far).
    nodes : DataFrame
        ``site, feature`` (index, or ``error``), ``attribution``, ``order`` and ``tau``: the largest tau of
        the sweep that the node survived (NaN: none).
    metadata : dict
    """

    steps: pd.DataFrame
    nodes: pd.DataFrame
    metadata: dict[str, Any]

    def circuit(self, tau: float, order: str = "attribution") -> pd.DataFrame:
        """Nodes that survive a tau: ``site, feature, attribution``."""
        chosen = self.nodes[(self.nodes["order"] == order) & (self.nodes["tau"] >= tau)]
        return chosen.loc[:, ["site", "feature", "attribution"]].reset_index(drop=True)


def acdc(
    exp: Experiment,
    attribution: Mapping[str, Float[np.ndarray, " nodes"]],
    *,
    taus: Sequence[float],
    start: NodeSet | None = None,
    n_random_orders: int = 3,
    screening: Screening = "none",
    seed: int = 0,
    on_step: Callable[[int], None] | None = None,
) -> Acdc:
    """Prune the full patch to a circuit.

    Parameters
    ----------
    exp : Experiment
    attribution : mapping of site to float (features + 1,)
        Importance of each node, the error node last; see :func:`helix_sae.causal.inference.attribution`. Its
        sites are the sites of the search.
    taus : sequence of float
        Thresholds in units of the divergence; swept in ascending order.
    start : NodeSet, optional
        Nodes to start from; all of them when absent. Leaving nodes out from the start is a screening.
    n_random_orders : int
        Further runs with nodes in random order inside each block, to show how much the order matters.
    screening : {"none", "halving"}
        ``halving`` tries to take out a whole block, then its halves, down to single nodes. A group leaves
        only when all of it together costs less than tau, which is stricter than one by one.
    seed : int
        Of the random orders.
    on_step : callable, optional
        Called with the number of nodes left after each removal.

    Raises
    ------
    ConfigurationError
        If no tau is given, or a site or set does not fit.
    """
    if not taus or min(taus) < 0:
        raise ConfigurationError(f"ACDC needs thresholds that are not negative, not {list(taus)}.")
    exp = exp.at(list(attribution))
    begin = all_nodes(exp.widths) if start is None else dict(start)
    begin = {site: begin.get(site, np.zeros(exp.width(site), dtype=bool)) for site in exp.sites}
    check_nodes(exp, begin)
    check_nodes(exp, {site: np.asarray(scores) for site, scores in attribution.items()})
    runs = [BatchRun(exp, batch) for batch in pair_batches(exp, STEPWISE_PADDING)]
    rng = np.random.default_rng(seed)
    steps: list[dict[str, Any]] = []
    nodes: list[pd.DataFrame] = []
    for name in ("attribution", *(f"random_{i}" for i in range(n_random_orders))):
        ranked = {site: _visiting_order(scores, name, rng) for site, scores in attribution.items()}
        search = _Search(exp, runs, {s: c.copy() for s, c in begin.items()}, name, screening, on_step)
        survived = search.sweep(sorted(taus), ranked)
        steps += search.steps
        nodes += [_node_rows(site, attribution[site], survived[site], name) for site in exp.sites]
    metadata = exp.metadata(
        "acdc",
        screening=screening,
        starts_from="all nodes" if start is None else "a screened set",
        n_pairs=len(exp.pairs),
    )
    return Acdc(pd.DataFrame(steps), pd.concat(nodes, ignore_index=True), metadata)


def _visiting_order(
    scores: Float[np.ndarray, " nodes"], name: str, rng: np.random.Generator
) -> Int[np.ndarray, " nodes"]:
    """Ascending |attribution|, or random."""
    if name == "attribution":
        return np.argsort(np.abs(scores), kind="stable")
    return rng.permutation(len(scores))


def _node_rows(
    site: str, scores: Float[np.ndarray, " nodes"], survived: Float[np.ndarray, " nodes"], order: str
) -> pd.DataFrame:
    names = [*(str(j) for j in range(len(scores) - 1)), ERROR]
    return pd.DataFrame(
        {"site": site, "feature": names, "attribution": scores, "order": order, "tau": survived}
    )


class _Search:
    """One sweep in one visiting order. Holds the nodes that are left and the divergence that they give."""

    def __init__(
        self,
        exp: Experiment,
        runs: Sequence[BatchRun],
        kept: dict[str, np.ndarray],
        order: str,
        screening: Screening,
        on_step: Callable[[int], None] | None,
    ) -> None:
        self.exp, self.runs, self.kept = exp, runs, kept
        self.order, self.screening, self.on_step = order, screening, on_step
        self.n_pairs = sum(len(run.batch.index) for run in runs)
        self.n_passes = 0
        self.steps: list[dict[str, Any]] = []

    def sweep(
        self, taus: Sequence[float], ranked: Mapping[str, Int[np.ndarray, " nodes"]]
    ) -> dict[str, Float[np.ndarray, " nodes"]]:
        """Prune at each tau in turn; the largest tau that each node survived."""
        survived = {site: np.full(len(k), np.nan) for site, k in self.kept.items()}
        for tau in taus:
            self._record_start(tau)
            for site in reversed(self.exp.sites):
                self._visit(site, ranked[site][self.kept[site][ranked[site]]], tau)
            for site, kept in self.kept.items():
                survived[site][kept] = tau
        return survived

    def _visit(self, site: str, ranked: Int[np.ndarray, " k"], tau: float) -> None:
        """Try to take out the nodes of one site. What lies before the site stays fixed meanwhile, so it is run once."""
        visits = [_Visit(run, site, self.kept) for run in self.runs]
        divergence = self._divergence(visits, None)
        # A node with the same value in the run as it stands and in the target changes nothing when it leaves.
        idle = np.logical_and.reduce([v.idle() for v in visits])[ranked]
        if idle.any():
            self._remove(site, ranked[idle], tau, divergence, visits)
        active = ranked[~idle]
        # A stack, the least important nodes on top.
        waiting = (
            [active] if self.screening == "halving" else [active[i : i + 1] for i in range(len(active))][::-1]
        )
        while waiting:
            group = waiting.pop()
            if len(group) == 0:
                continue
            grown = self._divergence(visits, group)
            if grown - divergence < tau:
                divergence = grown
                self._remove(site, group, tau, divergence, visits)
            elif len(group) > 1:
                middle = (len(group) + 1) // 2
                waiting += [group[middle:], group[:middle]]

    def _divergence(self, visits: Sequence[_Visit], removed: Int[np.ndarray, " k"] | None) -> float:
        self.n_passes += 1
        return float(sum(float(v.divergence(removed).double().sum()) for v in visits)) / self.n_pairs

    def _remove(
        self, site: str, nodes: Int[np.ndarray, " k"], tau: float, divergence: float, visits: Sequence[_Visit]
    ) -> None:
        self.kept[site][nodes] = False
        for visit in visits:
            visit.remove(nodes)
        magnitude = sum(float(v.magnitude().double().sum()) for v in visits) / self.n_pairs
        self._record(tau, site, len(nodes), divergence, magnitude)

    def _record_start(self, tau: float) -> None:
        """The state at the start of a tau, from a full pass."""
        self.n_passes += 1
        divergence = magnitude = 0.0
        for run in self.runs:
            y, size = run.patched([self.kept])
            divergence += float(self.exp.read_out.divergence(y[0], run.y_target).double().sum())
            magnitude += float(size.double().sum())
        self._record(tau, "", 0, divergence / self.n_pairs, magnitude / self.n_pairs)

    def _record(self, tau: float, site: str, n_removed: int, divergence: float, magnitude: float) -> None:
        left = int(sum(k.sum() for k in self.kept.values()))
        self.steps.append(
            {
                "order": self.order,
                "tau": tau,
                "step": len(self.steps),
                "site": site,
                "n_removed": n_removed,
                "n_nodes": left,
                "divergence": divergence,
                "edit_magnitude": magnitude,
                "screening": self.screening,
                "n_passes": self.n_passes,
            }
        )
        if self.on_step is not None:
            self.on_step(left)


class _Visit:
    """One batch while one site is visited: everything before the site is run already, and its patch is a plain sum."""

    def __init__(self, run: BatchRun, site: str, kept: NodeSet) -> None:
        self.run, self.site = run, site
        exp, batch = run.exp, run.batch
        before = exp.sites[: exp.sites.index(site)]
        after = exp.sites[exp.sites.index(site) + 1 :]
        begin = run.source.start
        self.decoder, patch = exp.decoders[site], run.patches[site].picked(slice(None), begin)
        hooks = run.hooks({s: kept[s] for s in before})
        with torch.no_grad(), exp.model.edited(hooks):
            cache = exp.model.cache(batch.source_ids)
            self.x = exp.model.at_site(site, cache)[:, begin:]
            self.prefix = exp.model.prefix_states(cache, begin)
        squares = (patch.squared_change for patch in hooks.values())
        self.squared_before = sum(
            (s[:, begin:] for s in squares if s is not None), torch.zeros_like(self.x[..., 0])
        )
        self.hooks = run.hooks({s: kept[s] for s in after}, begin)
        codes, error = encode(patch.dictionary, self.x)
        mask = patch.patched.unsqueeze(-1)
        self.delta = (patch.target_codes - codes) * mask
        self.error_delta = (patch.target_error - error) * mask
        self.change = patch.choose(kept[site]).change(self.x)

    def idle(self) -> np.ndarray:
        """Nodes whose removal changes nothing: (features + 1,)."""
        feature = ~(self.delta != 0).flatten(0, 1).any(0)
        error = ~(self.error_delta != 0).any()
        return torch.cat([feature, error.reshape(1)]).cpu().numpy()

    def without(self, nodes: Int[np.ndarray, " k"]) -> Float[Tensor, "n time width"]:
        """The change at the site with some nodes taken out."""
        n_features = self.decoder.shape[0]
        features = torch.as_tensor(nodes[nodes < n_features], device=self.decoder.device)
        change = self.change
        if len(features):
            change = change - self.delta.index_select(-1, features) @ self.decoder.index_select(0, features)
        if (nodes == n_features).any():
            change = change - self.error_delta
        return change

    def divergence(self, removed: Int[np.ndarray, " k"] | None = None) -> Float[Tensor, " n"]:
        """Of each pair, with some nodes taken out."""
        change = self.change if removed is None else self.without(removed)
        exp, batch = self.run.exp, self.run.batch
        with torch.no_grad():
            hidden = exp.model.resume_suffix(
                self.site, self.x + change, self.prefix, self.hooks, still=self.run.source.still
            )
            y = exp.read_out(exp.model.pool_suffix(hidden, self.prefix, batch.source_nucleotide))
            return exp.read_out.divergence(y, self.run.y_target)

    def remove(self, nodes: Int[np.ndarray, " k"]) -> None:
        """Take nodes out for good."""
        self.change = self.without(nodes)

    def magnitude(self) -> Float[Tensor, " n"]:
        """Size of the change as it stands, later sites as they were last run."""
        later = (patch.squared_change for patch in self.hooks.values())
        total = self.squared_before + self.change.square().sum(-1) + sum(s for s in later if s is not None)
        return total.sqrt().sum(1) / self.run.batch.source_nucleotide.sum(1)
