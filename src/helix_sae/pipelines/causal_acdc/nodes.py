"""Nodes that intervene: effects, circuit, curves."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from helix_sae.errors import ConfigurationError
from helix_sae.pipelines.causal_acdc.parameters import CausalParameters

if TYPE_CHECKING:
    from helix_sae.causal.alignment import TokenPair
    from helix_sae.causal.effects import Effects
    from helix_sae.causal.probe import Probe
    from helix_sae.datasets.activations import ActivationStore
    from helix_sae.helix.loading import HelixHandle
    from helix_sae.helix.model import HelixModel
    from helix_sae.sae import SparseAutoencoder
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    TokenPair = Effects = Probe = ActivationStore = HelixHandle = HelixModel = SparseAutoencoder = Any

LOGGER = logging.getLogger(__name__)

_FITTED_TOKENS = 30_000


class _Setting(NamedTuple):
    """What every experiment of a run shares."""

    model: HelixModel
    saes: dict[str, SparseAutoencoder]
    pairs: list[TokenPair]


def estimate(
    handle: HelixHandle,
    saes: dict[str, SparseAutoencoder],
    probe: Probe,
    pairs: pd.DataFrame,
    parameters: CausalParameters,
) -> tuple[Effects, Effects]:
    """Effects of every node by one gradient (atp) and along the path (ig)."""
    from helix_sae.causal.effects import effects

    setting = _setting(handle, saes, pairs, parameters)
    common = _common(parameters)
    atp = effects(setting.model, setting.saes, probe, setting.pairs, method="atp", **common)
    steps = parameters.effects.ig_steps
    ig = effects(setting.model, setting.saes, probe, setting.pairs, method="ig", steps=steps, **common)
    return atp, ig


def measure(
    handle: HelixHandle,
    saes: dict[str, SparseAutoencoder],
    probe: Probe,
    pairs: pd.DataFrame,
    atp: Effects,
    parameters: CausalParameters,
) -> Effects:
    """Exact effects: the model runs on from the patched block for every pair and node that differs."""
    from helix_sae.causal.effects import effects, screen
    from helix_sae.progress import progress_bar

    setting = _setting(handle, saes, pairs, parameters)
    top = parameters.effects.exact_top
    features = None if top is None else screen(atp, top)
    done = 0
    with progress_bar(
        "exact interventions", len(setting.pairs) * len(setting.saes), "pairs x sites"
    ) as advance:

        def count(n: int) -> None:
            nonlocal done
            done += n
            advance(done)

        return effects(
            setting.model,
            setting.saes,
            probe,
            setting.pairs,
            method="exact",
            features=features,
            on_batch=count,
            **_common(parameters),
        )


def summarise(
    exact: Effects, atp: Effects, ig: Effects, pairs: pd.DataFrame, parameters: CausalParameters
) -> tuple[pd.DataFrame, ...]:
    """Tables of the effects.

    Returns
    -------
    feature_effects : DataFrame
        Nodes selected on discovery families and tested on held-out ones.
    estimator_agreement : DataFrame
        atp and ig against exact, by site.
    designed_effects : DataFrame
        One row a pair: total effect, for edits beside their shams.
    prediction_comparison, prediction_agreement : DataFrame
        Predicted against known differences, by pair and in sum.
    position_effects : DataFrame
        By how much of the sequence follows the edit.
    """
    from helix_sae.causal.alignment import align_table
    from helix_sae.causal.comparison import by_edit_position, estimator_agreement, prediction_agreement
    from helix_sae.causal.inference import designed_against_sham, orientation, select_and_test

    n, seed = parameters.curves.n_resamples, parameters.seed
    selection = select_and_test(
        exact, pairs, top=parameters.effects.tested_top, q=parameters.effects.q, n_resamples=n, seed=seed
    )
    predicted = _forward_difference(exact)
    signs = orientation(exact, pairs)
    comparison = pairs[
        ["pair_id", "cluster", "split", "kind", "role", "is_sham", "difference", "difference_kind"]
    ].assign(predicted_difference=predicted)
    return (
        selection.table,
        estimator_agreement(exact, {"atp": atp, "ig": ig}, signs),
        designed_against_sham(exact, pairs),
        comparison,
        prediction_agreement(predicted, pairs, n_resamples=n, seed=seed),
        by_edit_position(exact, align_table(pairs, atp.metadata.get("codon_markers", "cds")), pairs),
    )


def find_circuit(
    handle: HelixHandle,
    saes: dict[str, SparseAutoencoder],
    probe: Probe,
    pairs: pd.DataFrame,
    exact: Effects,
    parameters: CausalParameters,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """ACDC on discovery pairs.

    Returns
    -------
    circuit : DataFrame
        The nodes of the start, and the largest threshold that each survives, by visiting order.
    circuit_steps : DataFrame
        Every removal, with the divergence and the edit magnitude after it.
    """
    from helix_sae.causal.acdc import acdc
    from helix_sae.causal.inference import attribution, orientation

    rows = _some_pairs(pairs, "discovery", parameters.acdc.max_pairs, parameters.seed)
    setting = _setting(handle, saes, pairs, parameters)
    scores = attribution(exact, orientation(exact, pairs), (pairs["split"] == "discovery").to_numpy())
    found = acdc(
        setting.model,
        setting.saes,
        probe,
        [setting.pairs[i] for i in rows],
        scores,
        taus=parameters.acdc.taus,
        start=_leading_nodes(scores, parameters.acdc.start_top),
        n_random_orders=parameters.acdc.n_random_orders,
        screening=parameters.acdc.screening,
        seed=parameters.seed,
        **_common(parameters),
    )
    LOGGER.info("ACDC on %d pairs: %s", len(rows), _circuit_sizes(found.nodes, parameters.acdc.taus))
    return found.nodes, found.steps


def connect(
    handle: HelixHandle,
    saes: dict[str, SparseAutoencoder],
    probe: Probe,
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
    from helix_sae.causal.edges import circuit_edges, circuit_to_json
    from helix_sae.causal.inference import orientation

    rows = _some_pairs(pairs, "discovery", parameters.acdc.max_pairs, parameters.seed)
    setting = _setting(handle, saes, pairs, parameters)
    tau, chosen = readable_circuit(circuit, parameters)
    edges = circuit_edges(
        setting.model,
        setting.saes,
        probe,
        [setting.pairs[i] for i in rows],
        _as_nodes(chosen, setting.saes),
        orientation(exact, pairs)[rows],
        n_verified=parameters.acdc.verified_edges,
        **_common(parameters),
    )
    metadata = {"tau": tau, "target": parameters.target, "model": handle.fingerprint, "pairs": len(rows)}
    return edges, circuit_to_json(chosen, edges, metadata)


def compare(
    handle: HelixHandle,
    saes: dict[str, SparseAutoencoder],
    probe: Probe,
    pairs: pd.DataFrame,
    atp: Effects,
    activations: ActivationStore,
    parameters: CausalParameters,
) -> tuple[pd.DataFrame, ...]:
    """Curves of the autoencoders and of every baseline, the ceilings, and the blocks side by side.

    Returns
    -------
    intervention_curves, baseline_comparison, block_ceilings, block_comparison, comparison_verdict : DataFrame
    """
    from helix_sae.causal.baselines import fit_baselines
    from helix_sae.causal.comparison import compare_blocks, compare_dictionaries, verdict
    from helix_sae.causal.curves import ceilings

    setting = _setting(handle, saes, pairs, parameters)
    baselines = fit_baselines(
        {site: _fitting_rows(activations, site) for site in setting.saes},
        setting.saes,
        names=parameters.curves.baselines,
        seed=parameters.seed,
    )
    rows = _curve_pairs(pairs, parameters)
    chosen, table = [setting.pairs[i] for i in rows], pairs.iloc[rows].reset_index(drop=True)
    common: dict[str, Any] = {
        **_common(parameters),
        "n_resamples": parameters.curves.n_resamples,
        "seed": parameters.seed,
    }
    comparison = compare_dictionaries(
        setting.model, {"sae": setting.saes, **baselines}, probe, chosen, table, **common
    )
    limits = ceilings(setting.model, setting.saes, probe, chosen, table["cluster"].to_numpy(), **common)
    words = pd.DataFrame({"finding": verdict(comparison.summary)})
    LOGGER.info("%s", "\n".join(words["finding"]))
    return comparison.curves, comparison.summary, limits, compare_blocks(atp, pairs, limits), words


def draw(
    curves: pd.DataFrame,
    baselines: pd.DataFrame,
    steps: pd.DataFrame,
    effects: pd.DataFrame,
    blocks: pd.DataFrame,
    comparison: pd.DataFrame,
    agreement: pd.DataFrame,
    designed: pd.DataFrame,
    parameters: CausalParameters,
) -> tuple[Any, ...]:
    """Curves, ACDC sweep, feature effects, blocks, predicted against known differences, edits beside shams."""
    from helix_sae.figures import causal_curves, causal_effects

    target = parameters.target
    return (
        causal_curves.intervention_curves(curves),
        causal_curves.baseline_curves(curves, baselines),
        causal_curves.acdc_curves(steps),
        causal_effects.feature_effects(effects, target=target),
        causal_effects.block_comparison(blocks),
        causal_effects.predicted_difference(comparison, target=target, agreement=agreement),
        causal_effects.designed_effects(designed, target=target),
    )


def draw_circuit(
    circuit: pd.DataFrame, edges: pd.DataFrame, steps: pd.DataFrame, parameters: CausalParameters
) -> Any:
    """The circuit as a graph."""
    from helix_sae.figures.causal_graph import circuit_graph

    tau, chosen = readable_circuit(circuit, parameters)
    at_tau = steps[(steps["order"] == "attribution") & (steps["tau"] <= tau)]
    left = f", divergence {at_tau['divergence'].iloc[-1]:.3g} nats" if len(at_tau) else ""
    return circuit_graph(
        chosen,
        edges,
        sites=list(dict.fromkeys(circuit["site"])),
        note=f"{len(chosen)} nodes at tau {tau:g}{left}",
    )


def readable_circuit(circuit: pd.DataFrame, parameters: CausalParameters) -> tuple[float, pd.DataFrame]:
    """The first tau of the sweep that leaves few enough nodes to be read (the last one when none does), and its nodes."""
    mine = circuit[circuit["order"] == "attribution"]
    for tau in parameters.acdc.taus:
        chosen = mine[mine["tau"] >= tau]
        if len(chosen) <= parameters.acdc.drawn_nodes:
            return tau, chosen[["site", "feature", "attribution"]].reset_index(drop=True)
    tau = parameters.acdc.taus[-1]
    return tau, mine.loc[mine["tau"] >= tau, ["site", "feature", "attribution"]].reset_index(drop=True)


def _as_nodes(chosen: pd.DataFrame, saes: dict[str, SparseAutoencoder]) -> dict[str, np.ndarray]:
    out = {site: np.zeros(sae.d_sae + 1, dtype=bool) for site, sae in saes.items()}
    for site, feature in zip(chosen["site"], chosen["feature"].astype(str), strict=True):
        out[site][-1 if feature == "error" else int(feature)] = True
    return out


def _setting(
    handle: HelixHandle, saes: dict[str, SparseAutoencoder], pairs: pd.DataFrame, parameters: CausalParameters
) -> _Setting:
    from helix_sae.causal.alignment import align_table
    from helix_sae.helix.loading import open_model

    model = open_model(handle)
    wanted = parameters.target_blocks
    chosen = {site: sae for site, sae in saes.items() if wanted is None or model.layer_of(site) in wanted}
    missing = set(wanted or ()) - {model.layer_of(site) for site in chosen}
    if missing:
        raise ConfigurationError(
            f"There is no autoencoder for block {', '.join(map(str, sorted(missing)))}; those of this run are at "
            f"{', '.join(saes)}. Set causal_acdc.target_blocks, or extraction.sites and train again."
        )
    placed = {site: sae.to(model.device) for site, sae in chosen.items()}
    return _Setting(model, placed, align_table(pairs, handle.codon_markers))


def _common(parameters: CausalParameters) -> dict[str, Any]:
    return {
        "direction": parameters.effects.direction,
        "positions": parameters.effects.positions,
        "token_budget": parameters.token_budget,
    }


def _forward_difference(found: Effects) -> np.ndarray:
    """Prediction of the pair's target minus that of its source, whichever of them was run."""
    turned = 1.0 if found.metadata["direction"] == "source_to_target" else -1.0
    return turned * (found.y_target - found.y_source)


def _some_pairs(pairs: pd.DataFrame, split: str, limit: int, seed: int) -> np.ndarray:
    """Row numbers of pairs of one part whose difference is known and not zero, drawn at random up to the limit."""
    usable = (pairs["split"] == split) & ~pairs["is_sham"] & (pairs["difference"].fillna(0) != 0)
    rows = np.flatnonzero(usable.to_numpy())
    return np.sort(np.random.default_rng(seed).permutation(rows)[:limit])


def _curve_pairs(pairs: pd.DataFrame, parameters: CausalParameters) -> np.ndarray:
    """Pairs of both parts: nodes are ranked on discovery ones and the curves drawn on held-out ones."""
    limit, seed = parameters.curves.max_pairs, parameters.seed
    return np.sort(
        np.concatenate([_some_pairs(pairs, split, limit, seed) for split in ("discovery", "heldout")])
    )


def _leading_nodes(scores: dict[str, np.ndarray], top: int) -> dict[str, np.ndarray]:
    """The features of largest |attribution| at each site, and its error node."""
    out: dict[str, np.ndarray] = {}
    for site, values in scores.items():
        chosen = np.zeros(len(values), dtype=bool)
        chosen[np.argsort(-np.abs(values[:-1]), kind="stable")[:top]] = True
        chosen[-1] = True
        out[site] = chosen
    return out


def _fitting_rows(activations: ActivationStore, site: str) -> np.ndarray:
    """Evenly spaced tokens of the corpus, for the components of the baselines."""
    step = max(1, activations.n_tokens // _FITTED_TOKENS)
    return np.concatenate([s.activations[site][::step] for s in activations.iter_shards([site])])


def _circuit_sizes(nodes: pd.DataFrame, taus: list[float]) -> str:
    by_attribution = nodes[nodes["order"] == "attribution"]
    return ", ".join(f"{int((by_attribution['tau'] >= tau).sum())} nodes at tau {tau:g}" for tau in taus)
