"""Nodes that intervene on single features and on growing sets of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helix_sae.pipelines.causal_acdc.parameters import CausalParameters
from helix_sae.pipelines.causal_acdc.setting import curve_pairs, options, prepare, some_pairs

if TYPE_CHECKING:
    from helix_sae.activations.store import ActivationStore
    from helix_sae.causal.effects import Effects
    from helix_sae.causal.read_out import Probe
    from helix_sae.models.helix.loading import HelixHandle
    from helix_sae.sae import SparseAutoencoder
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    Effects = Probe = ActivationStore = HelixHandle = SparseAutoencoder = Any

LOGGER = logging.getLogger(__name__)

_FITTED_TOKENS = 30_000
_OTHER = {"source_to_target": "target_to_source", "target_to_source": "source_to_target"}


def estimate(
    handle: HelixHandle,
    saes: dict[str, SparseAutoencoder],
    probe: Probe,
    pairs: pd.DataFrame,
    parameters: CausalParameters,
) -> Effects:
    """Effects of every node by one gradient (attribution patching)."""
    from helix_sae.causal.effects import effects

    given = prepare(handle, saes, pairs, parameters)
    return effects(given.model, given.saes, probe, given.pairs, method="atp", **options(parameters))


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

    given = prepare(handle, saes, pairs, parameters)
    top = parameters.effects.exact_top
    features = None if top is None else screen(atp, top)
    done = 0
    with progress_bar("exact interventions", len(given.pairs) * len(given.saes), "pairs x sites") as advance:

        def count(n: int) -> None:
            nonlocal done
            done += n
            advance(done)

        return effects(
            given.model,
            given.saes,
            probe,
            given.pairs,
            method="exact",
            features=features,
            on_batch=count,
            **options(parameters),
        )


def check_estimators(
    handle: HelixHandle,
    saes: dict[str, SparseAutoencoder],
    probe: Probe,
    pairs: pd.DataFrame,
    atp: Effects,
    parameters: CausalParameters,
) -> tuple[pd.DataFrame, Effects]:
    """How far estimates and directions can be trusted, by site, on some discovery pairs.

    There, exact effects are measured from the source, by leaving a node out of the fully patched run (integrated gradients
    estimate the mean of the two) and in the other direction.

    Returns
    -------
    estimator_agreement : DataFrame
    effects_ig : Effects
        By integrated gradients, of these pairs.
    """
    from helix_sae.causal.comparison import estimator_agreement
    from helix_sae.causal.effects import effects, screen, stamp
    from helix_sae.causal.inference import orientation

    given = prepare(handle, saes, pairs, parameters)
    rows = some_pairs(pairs, "discovery", parameters.effects.checked_pairs, parameters.seed)
    some, common = [given.pairs[i] for i in rows], options(parameters)
    steps = parameters.effects.ig_steps
    ig = effects(given.model, given.saes, probe, some, method="ig", steps=steps, **common)
    top = parameters.effects.checked_top
    common["features"] = None if top is None else screen(atp.rows(rows), top)
    exact = effects(given.model, given.saes, probe, some, **common)
    patched = effects(given.model, given.saes, probe, some, start="patched", **common)
    common["direction"] = _OTHER[parameters.effects.direction]
    other = effects(given.model, given.saes, probe, some, **common)
    table = estimator_agreement(
        exact,
        {"atp": atp.rows(rows), "ig": ig},
        orientation(atp, pairs)[rows],
        exact_patched=patched,
        exact_reversed=other,
    )
    return stamp(table, exact.metadata, estimator=table["estimator"]), ig


def summarise(
    handle: HelixHandle, exact: Effects, pairs: pd.DataFrame, parameters: CausalParameters
) -> tuple[pd.DataFrame, ...]:
    """Tables of the effects.

    Returns
    -------
    feature_effects : DataFrame
        Nodes selected on discovery families and tested on held-out ones.
    designed_effects : DataFrame
        One row a pair: total effect, for edits beside their shams.
    prediction_comparison, prediction_agreement : DataFrame
        Predicted against known differences, by pair and in sum.
    position_effects : DataFrame
        By how much of the sequence follows the edit.
    """
    from helix_sae.causal.alignment import align_table
    from helix_sae.causal.comparison import by_edit_position, prediction_agreement
    from helix_sae.causal.effects import stamp
    from helix_sae.causal.inference import designed_against_sham, select_and_test

    n, seed = parameters.curves.n_resamples, parameters.seed
    selection = select_and_test(
        exact, pairs, top=parameters.effects.tested_top, q=parameters.effects.q, n_resamples=n, seed=seed
    )
    predicted = _forward_difference(exact)
    comparison = pairs[
        ["pair_id", "cluster", "split", "kind", "role", "is_sham", "difference", "difference_kind"]
    ].assign(predicted_difference=predicted)
    return (
        selection.table,
        stamp(designed_against_sham(exact, pairs), exact.metadata),
        comparison,
        prediction_agreement(predicted, pairs, n_resamples=n, seed=seed),
        stamp(
            by_edit_position(
                exact, align_table(pairs, handle.codon_markers), pairs, n_resamples=n, seed=seed
            ),
            exact.metadata,
        ),
    )


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
    from helix_sae.causal.effects import stamp

    given = prepare(handle, saes, pairs, parameters)
    baselines = fit_baselines(
        {site: _fitting_rows(activations, site) for site in given.saes},
        given.saes,
        names=parameters.curves.baselines,
        seed=parameters.seed,
    )
    rows = curve_pairs(pairs, parameters.curves.max_pairs, parameters.seed)
    chosen, table = [given.pairs[i] for i in rows], pairs.iloc[rows].reset_index(drop=True)
    common: dict[str, Any] = {
        **options(parameters),
        "n_resamples": parameters.curves.n_resamples,
        "seed": parameters.seed,
    }
    comparison = compare_dictionaries(
        given.model, {"sae": given.saes, **baselines}, probe, chosen, table, necessity="reference", **common
    )
    limits = ceilings(given.model, given.saes, probe, chosen, table["cluster"].to_numpy(), **common)
    words = pd.DataFrame({"finding": verdict(comparison.summary)})
    LOGGER.info("%s", "\n".join(words["finding"]))
    patch = {"estimator": "patch of a set, ranked by atp"}
    return (
        _of_autoencoders(stamp(comparison.curves, atp.metadata, **patch)),
        _of_autoencoders(stamp(comparison.summary, atp.metadata, **patch)),
        stamp(limits, atp.metadata, estimator="patch of a set"),
        stamp(compare_blocks(atp, pairs, limits), atp.metadata),
        words,
    )


def _of_autoencoders(table: pd.DataFrame) -> pd.DataFrame:
    """The hash is that of the trained autoencoders; a baseline is known by its name and the seed."""
    return table.assign(dictionary_hash=table["dictionary_hash"].where(table["dictionary"] == "sae"))


def draw(
    curves: pd.DataFrame,
    baselines: pd.DataFrame,
    steps: pd.DataFrame,
    effects: pd.DataFrame,
    blocks: pd.DataFrame,
    comparison: pd.DataFrame,
    agreement: pd.DataFrame,
    designed: pd.DataFrame,
    positions: pd.DataFrame,
    parameters: CausalParameters,
) -> tuple[Any, ...]:
    """Curves, ACDC sweep, feature effects, blocks, predicted against known differences, edits beside shams, strata."""
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
        causal_effects.position_effects(positions, target=target),
    )


def _forward_difference(found: Effects) -> np.ndarray:
    """Prediction of the pair's target minus that of its source, whichever of them was run."""
    turned = 1.0 if found.metadata["direction"] == "source_to_target" else -1.0
    return turned * (found.y_target - found.y_source)


def _fitting_rows(activations: ActivationStore, site: str) -> np.ndarray:
    """Evenly spaced tokens of the corpus, for the components of the baselines."""
    step = max(1, activations.n_tokens // _FITTED_TOKENS)
    return np.concatenate([s.activations[site][::step] for s in activations.iter_shards([site])])
