"""Nodes that search for a circuit, connect its nodes and judge it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helix_sae.pipelines.causal_acdc.experiment import some_pairs
from helix_sae.pipelines.causal_acdc.parameters import CausalParameters

if TYPE_CHECKING:
    from helix_sae.causal.effects import Effects
    from helix_sae.causal.specification import Specification
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    Effects = Specification = Any

LOGGER = logging.getLogger(__name__)


def find_circuit(
    experiment: Specification, pairs: pd.DataFrame, exact: Effects, parameters: CausalParameters
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """ACDC on discovery pairs.

    Returns
    -------
    circuit : DataFrame
        The nodes of the start, and the largest threshold that each survives, by visiting order.
    circuit_steps : DataFrame
        Every removal, with the divergence and the edit magnitude after it.
    """
    from helix_sae.causal.effects import stamp
    from helix_sae.causal.inference import attribution, orientation

    rows = some_pairs(pairs, "discovery", parameters.acdc.max_pairs, parameters.seed)
    scores = attribution(exact, orientation(exact, pairs), (pairs["split"] == "discovery").to_numpy())
    top = parameters.acdc.start_top
    found = (
        experiment.open()
        .on(rows)
        .acdc(
            scores,
            taus=parameters.acdc.taus,
            start=None if top is None else _leading_nodes(scores, top),
            n_random_orders=parameters.acdc.n_random_orders,
            screening=parameters.acdc.screening,
            seed=parameters.seed,
        )
    )
    LOGGER.info("ACDC on %d pairs: %s", len(rows), _circuit_sizes(found.nodes, parameters.acdc.taus))
    changes = {"starts_from": found.metadata["starts_from"]}
    return stamp(found.nodes, found.metadata, **changes), stamp(found.steps, found.metadata, **changes)


def connect(
    experiment: Specification,
    pairs: pd.DataFrame,
    circuit: pd.DataFrame,
    exact: Effects,
    parameters: CausalParameters,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Edges between the nodes of a readable circuit of the sweep.

    Returns
    -------
    circuit_edges : DataFrame
        Gradient estimates, the strongest ones verified by path patching.
    circuit_graph : dict
        Nodes and edges in node-link form.
    """
    from helix_sae.causal.edges import circuit_to_json
    from helix_sae.causal.effects import stamp
    from helix_sae.causal.inference import orientation

    rows = some_pairs(pairs, "discovery", parameters.acdc.max_pairs, parameters.seed)
    exp = experiment.open().on(rows)
    tau, chosen = readable_circuit(circuit, parameters)
    edges = exp.edges(
        _as_nodes(chosen, exp.widths),
        orientation(exact, pairs)[rows],
        n_verified=parameters.acdc.verified_edges,
    )
    made = exp.metadata("gradient of the path, the strongest by path patching")
    described = {name: value for name, value in made.items() if name != "estimator"}
    metadata = {"tau": tau, "target": parameters.target, "pairs": len(rows), **described}
    return stamp(edges, made), circuit_to_json(chosen, edges, metadata)


def judge_circuit(
    experiment: Specification,
    pairs: pd.DataFrame,
    circuit: pd.DataFrame,
    learnt: pd.DataFrame,
    parameters: CausalParameters,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The circuits of the sweep on held-out pairs.

    Returns
    -------
    circuit_quality : DataFrame
        Faithfulness, completeness and size of every circuit, beside as many features by learnt masks and at
        random.
    circuit_minimality : DataFrame
        What each node adds to the circuit that is drawn.
    """
    from helix_sae.causal.curves import circuit_quality, minimality, rank_nodes
    from helix_sae.causal.effects import stamp
    from helix_sae.pipelines.causal_acdc.nodes import mask_scores

    rows = some_pairs(pairs, "validation", parameters.curves.max_pairs, parameters.seed)
    exp = experiment.open().on(rows)
    mine = circuit[circuit["order"] == "attribution"]
    quality = circuit_quality(
        exp,
        {tau: _as_nodes(mine[mine["tau"] >= tau], exp.widths) for tau in parameters.acdc.taus},
        pairs["cluster"].to_numpy()[rows],
        others={"masks": rank_nodes(mask_scores(learnt))},
        n_resamples=parameters.curves.n_resamples,
        seed=parameters.seed,
    )
    tau, chosen = readable_circuit(circuit, parameters)
    columns = ["site", "feature", "contribution"]
    parts = minimality(exp, _as_nodes(chosen, exp.widths)) if len(chosen) else pd.DataFrame(columns=columns)
    made = exp.metadata("patch of a set, found by acdc")
    return stamp(quality, made), stamp(parts, made, tau=tau)


def draw_circuit(
    circuit: pd.DataFrame,
    edges: pd.DataFrame,
    steps: pd.DataFrame,
    quality: pd.DataFrame,
    contributions: pd.DataFrame,
    parameters: CausalParameters,
) -> tuple[Any, Any]:
    """The circuit as a graph, and how it does on held-out pairs."""
    from helix_sae.figures.causal_curves import circuit_quality
    from helix_sae.figures.causal_graph import circuit_graph

    tau, chosen = readable_circuit(circuit, parameters)
    at_tau = steps[(steps["order"] == "attribution") & (steps["tau"] <= tau)]
    left = f", divergence {at_tau['divergence'].iloc[-1]:.3g} nats" if len(at_tau) else ""
    graph = circuit_graph(
        chosen,
        edges,
        sites=list(dict.fromkeys(circuit["site"])),
        note=f"{len(chosen)} nodes at τ = {tau:g}{left}",
    )
    return graph, circuit_quality(quality, contributions)


def readable_circuit(circuit: pd.DataFrame, parameters: CausalParameters) -> tuple[float, pd.DataFrame]:
    """The first tau of the sweep that leaves few enough nodes to be read (the last one when none does), and its nodes."""
    mine = circuit[circuit["order"] == "attribution"]
    for tau in parameters.acdc.taus:
        chosen = mine[mine["tau"] >= tau]
        if len(chosen) <= parameters.acdc.drawn_nodes:
            return tau, chosen[["site", "feature", "attribution"]].reset_index(drop=True)
    tau = parameters.acdc.taus[-1]
    return tau, mine.loc[mine["tau"] >= tau, ["site", "feature", "attribution"]].reset_index(drop=True)


def _as_nodes(chosen: pd.DataFrame, widths: dict[str, int]) -> dict[str, np.ndarray]:
    out = {site: np.zeros(width, dtype=bool) for site, width in widths.items()}
    for site, feature in zip(chosen["site"], chosen["feature"].astype(str), strict=True):
        out[site][-1 if feature == "error" else int(feature)] = True
    return out


def _leading_nodes(scores: dict[str, np.ndarray], top: int) -> dict[str, np.ndarray]:
    """The features of largest |attribution| at each site, and its error node."""
    out: dict[str, np.ndarray] = {}
    for site, values in scores.items():
        chosen = np.zeros(len(values), dtype=bool)
        chosen[np.argsort(-np.abs(values[:-1]), kind="stable")[:top]] = True
        chosen[-1] = True
        out[site] = chosen
    return out


def _circuit_sizes(nodes: pd.DataFrame, taus: list[float]) -> str:
    by_attribution = nodes[nodes["order"] == "attribution"]
    return ", ".join(f"{int((by_attribution['tau'] >= tau).sum())} nodes at tau {tau:g}" for tau in taus)
