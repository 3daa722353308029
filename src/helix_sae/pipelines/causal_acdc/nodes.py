"""Nodes that intervene on single features and on growing sets of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from helix_sae.pipelines.causal_acdc.experiment import curve_pairs, some_pairs
from helix_sae.pipelines.causal_acdc.parameters import CausalParameters

if TYPE_CHECKING:
    from helix_sae.activations import Activations
    from helix_sae.causal.effects import Effects
    from helix_sae.causal.specification import Specification
    from helix_sae.sae import SparseAutoencoder
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    Activations = Effects = Specification = Any

LOGGER = logging.getLogger(__name__)

_FITTED_TOKENS = 30_000


def estimate(experiment: Specification) -> Effects:
    """Effects of every node by one gradient (attribution patching)."""
    return experiment.open().effects("atp")


def measure(experiment: Specification, atp: Effects, parameters: CausalParameters) -> Effects:
    """Exact effects: the model runs on from the patched block for every pair and node that differs."""
    from helix_sae.causal.effects import screen
    from helix_sae.progress import progress_bar

    exp, top = experiment.open(), parameters.effects.exact_top
    done = 0
    with progress_bar("exact interventions", len(exp.pairs) * len(exp.sites), "pairs x sites") as advance:

        def count(n: int) -> None:
            nonlocal done
            done += n
            advance(done)

        return exp.effects("exact", nodes=None if top is None else screen(atp, top), on_batch=count)


def check_estimators(
    experiment: Specification, pairs: pd.DataFrame, atp: Effects, parameters: CausalParameters
) -> tuple[pd.DataFrame, Effects]:
    """How far estimates and directions can be trusted, by site, on some discovery pairs.

    There, exact effects are measured from the source, by leaving a node out of the fully patched run
    (integrated gradients estimate the mean of the two) and in the other direction.

    Returns
    -------
    estimator_agreement : DataFrame
    effects_ig : Effects
        By integrated gradients, of these pairs.
    """
    from helix_sae.causal.comparison import estimator_agreement
    from helix_sae.causal.effects import screen, stamp
    from helix_sae.causal.inference import orientation

    rows = some_pairs(pairs, "discovery", parameters.effects.checked_pairs, parameters.seed)
    some = experiment.open().on(rows)
    ig = some.effects("ig", steps=parameters.effects.ig_steps)
    top = parameters.effects.checked_top
    nodes = None if top is None else screen(atp.rows(rows), top)
    exact = some.effects("exact", nodes=nodes)
    table = estimator_agreement(
        exact,
        {"atp": atp.rows(rows), "ig": ig},
        orientation(atp, pairs)[rows],
        exact_patched=some.effects("exact", start="patched", nodes=nodes),
        exact_reversed=some.turned().effects("exact", nodes=nodes),
    )
    return stamp(table, exact.metadata, estimator=table["estimator"]), ig


def summarise(
    experiment: Specification,
    exact: Effects,
    pairs: pd.DataFrame,
    stability: pd.DataFrame,
    parameters: CausalParameters,
) -> tuple[pd.DataFrame, ...]:
    """Tables of the effects.

    Returns
    -------
    feature_effects : DataFrame
        Nodes selected on discovery families and tested on held-out ones, with the stability of each feature.
    designed_effects : DataFrame
        One row a pair: total effect, for edits beside their shams.
    prediction_comparison, prediction_agreement : DataFrame
        Predicted against known differences, by pair and in sum.
    position_effects : DataFrame
        By how much of the sequence follows the edit.
    """
    from helix_sae.causal.comparison import by_edit_position, prediction_agreement
    from helix_sae.causal.effects import stamp
    from helix_sae.causal.inference import designed_against_sham, select_and_test
    from helix_sae.sae.stability import join_certified

    n, seed = parameters.curves.n_resamples, parameters.seed
    selection = select_and_test(
        exact, pairs, top=parameters.effects.tested_top, q=parameters.effects.q, n_resamples=n, seed=seed
    )
    predicted = _forward_difference(exact)
    comparison = pairs[
        ["pair_id", "cluster", "split", "kind", "role", "is_sham", "difference", "difference_kind"]
    ].assign(predicted_difference=predicted)
    strata = by_edit_position(exact, experiment.pairs, pairs, n_resamples=n, seed=seed)
    return (
        join_certified(selection.table, stability),
        stamp(designed_against_sham(exact, pairs), exact.metadata),
        comparison,
        prediction_agreement(predicted, pairs, n_resamples=n, seed=seed),
        stamp(strata, exact.metadata),
    )


def learn_sets(
    experiment: Specification, pairs: pd.DataFrame, exact: Effects, parameters: CausalParameters
) -> pd.DataFrame:
    """Masks over all features, learnt on discovery pairs: which of them to patch together.

    Returns
    -------
    learnt_masks : DataFrame
        ``site, feature, score`` (0 to 1) and ``passes`` a pair, those of the exact effects that it starts
        from included.
    """
    from helix_sae.causal.effects import stamp
    from helix_sae.causal.inference import attribution, orientation
    from helix_sae.causal.masks import learn_masks

    rows = some_pairs(pairs, "discovery", parameters.curves.max_pairs, parameters.seed)
    start = attribution(exact, orientation(exact, pairs), (pairs["split"] == "discovery").to_numpy())
    exp = experiment.open().on(rows)
    learnt = learn_masks(exp, start, steps=parameters.curves.mask_steps)
    run = sum(int(((exact.magnitude[s] > 0) & np.isfinite(exact.values[s])).sum()) for s in exp.sites)
    table = pd.concat(
        [
            pd.DataFrame(
                {"site": site, "feature": np.arange(len(scores) - 1).astype(str), "score": scores[:-1]}
            )
            for site, scores in learnt.scores.items()
        ],
        ignore_index=True,
    ).assign(passes=learnt.passes + 4.0 + run / len(pairs))
    return stamp(table, exp.metadata("learnt masks"))


def mask_scores(learnt: pd.DataFrame) -> dict[str, np.ndarray]:
    """Scores by site, with a 0 for the error node, of a table of learnt masks."""
    return {
        str(site): np.append(part["score"].to_numpy(dtype=np.float64), 0.0)
        for site, part in learnt.groupby("site", sort=False)
    }


def compare(
    experiment: Specification,
    pairs: pd.DataFrame,
    atp: Effects,
    learnt: pd.DataFrame,
    activations: Activations,
    parameters: CausalParameters,
) -> tuple[pd.DataFrame, ...]:
    """Curves of the autoencoders, of every baseline and of supervised subspaces, the ceilings, and the blocks side by side.

    Returns
    -------
    intervention_curves, baseline_comparison, block_ceilings, block_comparison, comparison_verdict : DataFrame
    """
    from helix_sae.causal.baselines import fit_baselines
    from helix_sae.causal.comparison import Scored, compare_blocks, verdict
    from helix_sae.causal.curves import ceilings
    from helix_sae.causal.effects import stamp
    from helix_sae.causal.subspaces import fit_subspaces

    wanted = parameters.curves
    rows = curve_pairs(pairs, parameters.curves.max_pairs, parameters.seed)
    exp, table = experiment.open().on(rows), pairs.iloc[rows].reset_index(drop=True)
    baselines = fit_baselines(
        {site: _fitting_rows(activations, site) for site in exp.sites},
        cast("dict[str, SparseAutoencoder]", exp.dictionaries),
        names=parameters.curves.baselines,
        seed=parameters.seed,
    )
    resampled: dict[str, Any] = {"n_resamples": parameters.curves.n_resamples, "seed": parameters.seed}
    discovery = (table["split"] == "discovery").to_numpy()
    rank = min(wanted.das_rank, *(decoder.shape[1] for decoder in exp.decoders.values()))
    das = fit_subspaces(exp.on(discovery), rank=rank, steps=wanted.das_steps, seed=parameters.seed)
    comparison = exp.compare(
        {**baselines, "das": das.dictionaries},
        table,
        top=wanted.ranked_top,
        rankings={"masks": Scored(mask_scores(learnt), float(learnt["passes"].iloc[0]))},
        spent={"das": das.passes},
        necessity="reference",
        **resampled,
    )
    limits = ceilings(exp, table["cluster"].to_numpy(), **resampled)
    words = pd.DataFrame({"finding": verdict(comparison.summary)})
    LOGGER.info("%s", "\n".join(words["finding"]))
    patch = {"estimator": "patch of a set, ranked on discovery pairs"}
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


def _fitting_rows(activations: Activations, site: str) -> np.ndarray:
    """Evenly spaced tokens of the corpus, for the components of the baselines."""
    step = max(1, activations.n_tokens // _FITTED_TOKENS)
    return np.concatenate([s.activations[site][::step] for s in activations.parts([site])])
