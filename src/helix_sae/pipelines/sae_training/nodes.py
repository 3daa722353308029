"""Nodes of the SAE training pipeline."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from helix_sae.errors import AnalysisError, DataError
from helix_sae.names import POOLED
from helix_sae.pipelines.extraction.nodes import whole
from helix_sae.pipelines.extraction.parameters import ExtractionParameters
from helix_sae.pipelines.sae_training.certify import certify_seeds, pool_seeds
from helix_sae.pipelines.sae_training.judge import judge_held_out
from helix_sae.pipelines.sae_training.parameters import SaeTrainingParameters
from helix_sae.pipelines.sae_training.shipped import adopt, fitting, remember_origin
from helix_sae.pipelines.sae_training.tokens import check_enough, held_out, members, orders

if TYPE_CHECKING:
    from anndata import AnnData

    from helix_sae.activations import Activations
    from helix_sae.codes import CodesPlan
    from helix_sae.models.registry import ModelHandle
    from helix_sae.sae import SparseAutoencoder
    from helix_sae.sae.codes import SiteCodes
    from helix_sae.sae.scaling import EffectiveRank
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    AnnData = Activations = CodesPlan = EffectiveRank = ModelHandle = SiteCodes = SparseAutoencoder = Any

LOGGER = logging.getLogger(__name__)

FEATURES_PER_DIRECTION = 5
"""Features for each direction of a site's activations above which they are near chance to be found again."""

_RANK_TOKENS = 16_384


def train(
    activations: Activations,
    table: pd.DataFrame,
    offered: dict[str, SparseAutoencoder],
    parameters: SaeTrainingParameters,
) -> tuple[
    dict[str, SparseAutoencoder], pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame
]:
    """Train every configuration at every site on the discovery part; measure on the validation part.

    Where that is asked for, or there are too few tokens to train on, the autoencoders that come with the
    model (``offered``) are taken in their place.

    Returns
    -------
    sae_checkpoints : dict of site to SparseAutoencoder
        Of the chosen configuration, with the stability of each feature: pooled from its seeds, or its first
        seed's.
    training_history, sae_metrics : DataFrame
        Of all configurations and seeds; the metrics have pooled dictionaries as a configuration of their own.
    sae_stability, sae_stability_summary, sae_subspaces : DataFrame
        What other seeds say of these (:func:`~helix_sae.pipelines.sae_training.certify.certify_seeds`).
    """
    from helix_sae.models.registry import resolve_device
    from helix_sae.progress import progress_bar
    from helix_sae.sae import EarlyStopping, train_saes

    activations.check_finite()
    sites = list(activations.sites)
    discovery = members(table, activations, "discovery")

    n_tokens = activations.n_tokens_of(discovery)
    holdout = held_out(activations, table, parameters)
    shipped = fitting(offered, activations)
    if parameters.dictionaries == "shipped":
        if not shipped:
            raise DataError(
                f"No autoencoders come with this model for {', '.join(sites)}; set "
                "sae_training.dictionaries to train."
            )
        return adopt(shipped, holdout, parameters, "sae_training.dictionaries asks for no training.")
    try:
        check_enough(n_tokens, activations.widths, parameters.saes, "sae_training.saes")
    except DataError as error:
        if parameters.dictionaries == "train" or not shipped:
            raise
        return adopt(shipped, holdout, parameters, str(error))
    n_steps = parameters.n_steps(n_tokens)
    rule = parameters.early_stopping
    ranks: dict[str, EffectiveRank] = {}
    if holdout:
        ranks = warn_of_rank(
            {
                s: np.concatenate(
                    [batch[s] for batch in holdout[: 1 + _RANK_TOKENS // parameters.batch_size]]
                )
                for s in sites
            },
            parameters,
        )
    batches = orders(activations, discovery, parameters)
    with progress_bar("training autoencoders", n_steps, "steps") as advance:
        result = train_saes(
            batches,
            parameters.saes,
            n_seeds=parameters.n_seeds,
            sites=sites,
            n_steps=n_steps,
            seed=parameters.seed,
            holdout=holdout,  # pyright: ignore[reportArgumentType]
            calibration_tokens=parameters.calibration_tokens,
            log_every=parameters.log_every,
            device=resolve_device(parameters.device),
            precision=parameters.precision,
            compiled=parameters.compiled,
            progress=lambda step, _total, _explained: advance(step),
            scratch=_scratch(activations, table, parameters),
            early_stopping=None if rule is None else EarlyStopping(**rule.model_dump()),
        )
    LOGGER.info("held-out metrics:\n%s", _summary(result.metrics))
    check_explained(result.metrics, parameters)
    seeds, metrics = result.seeds(parameters.chosen), result.metrics
    saes, used = result.by_site(parameters.chosen), parameters.chosen
    pooled = pool_seeds(seeds, result.scalings, batches, parameters)
    if pooled:
        saes, used = pooled, POOLED
        measured = judge_held_out(pooled, holdout, POOLED)
        LOGGER.info("held-out metrics of the pooled dictionaries:\n%s", _summary(measured))
        metrics = pd.concat([metrics, measured], ignore_index=True)
    metrics = with_ranks(metrics, ranks)
    stability = certify_seeds(seeds, holdout, pooled)
    remember_origin(saes, holdout, activations, metrics[metrics["config"] == used])
    return saes, result.history, metrics, *stability


def warn_of_rank(
    rows: Mapping[str, Float[Any, "n d_in"]], parameters: SaeTrainingParameters
) -> dict[str, EffectiveRank]:
    """Say where a dictionary is far wider, or more of it active, than the directions that a site's activations have.

    Parameters
    ----------
    rows : mapping of site to float (n, d_in)
        Some activations.
    parameters : SaeTrainingParameters

    Returns
    -------
    dict of site to EffectiveRank

    Raises
    ------
    DataError
        If more features are to be active than the activations of a site have directions.
    """
    import torch

    from helix_sae.sae.scaling import effective_rank

    ranks = {site: effective_rank(torch.as_tensor(values)) for site, values in rows.items()}
    for site, rank in ranks.items():
        LOGGER.info(
            "%s: 99 %% of the variance in %d of %d directions, participation ratio %.1f.",
            site,
            rank.n_directions,
            rows[site].shape[1],
            rank.participation_ratio,
        )
        for name, config in parameters.saes.items():
            resolved = config.resolve(int(rows[site].shape[1]), f"site {site}")
            k = getattr(config, "k", 0)
            if k > rank.rank:
                raise DataError(
                    f"At {site} the activations have {rank.rank} directions, and {name} is to have k = {k} "
                    "features active:"
                    f" nothing sparse can come of that. Lower sae_training.saes.{name}.k, or give other "
                    "sequences."
                )
            if resolved.d_sae > FEATURES_PER_DIRECTION * rank.n_directions:
                LOGGER.warning(
                    "%s has %d features at %s, whose activations have %d directions (99 %% of the "
                    "variance): other seeds will hardly find the same. Lower "
                    "sae_training.saes.%s.expansion_factor to %.2g or less.",
                    name,
                    resolved.d_sae,
                    site,
                    rank.n_directions,
                    name,
                    FEATURES_PER_DIRECTION * rank.n_directions / rows[site].shape[1],
                )
            if k >= rank.n_directions:
                LOGGER.warning(
                    "k = %d features are active at %s, whose activations have %d directions (99 %% of the "
                    "variance): there is nothing sparse about that. Lower sae_training.saes.%s.k.",
                    k,
                    site,
                    rank.n_directions,
                    name,
                )
    return ranks


def with_ranks(metrics: pd.DataFrame, ranks: Mapping[str, EffectiveRank]) -> pd.DataFrame:
    """Add to each row of ``sae_metrics`` in how many directions the activations of its site vary."""
    if not ranks or metrics.empty:
        return metrics
    of = metrics["site"].map(ranks)
    return metrics.assign(
        participation_ratio=[rank.participation_ratio for rank in of],
        n_directions=[rank.n_directions for rank in of],
    )


def check_explained(metrics: pd.DataFrame, parameters: SaeTrainingParameters) -> None:
    """Raise an AnalysisError where the chosen autoencoders do not describe their sites."""
    if "explained_variance" not in metrics:
        return
    used = metrics[(metrics["config"] == parameters.chosen) & (metrics["seed"] == 0)]
    # Not `<`: of constant activations no share is explained.
    low = used[~(used["explained_variance"] >= parameters.min_explained_variance)]
    if len(low):
        found = ", ".join(f"{row.site} {row.explained_variance:.2f}" for row in low.itertuples(index=False))
        raise AnalysisError(
            f"The autoencoders explain too little of the held-out variance ({found}; at least "
            f"{parameters.min_explained_variance:g} is asked for by sae_training.min_explained_variance). "
            f"Train longer (sae_training.min_steps, now {parameters.min_steps:,}), with a lower price or "
            f"more active features (l1_coefficient, k of sae_training.saes.{parameters.chosen}), or on more "
            "sequences."
        )


def encode(
    activations: Activations,
    saes: dict[str, SparseAutoencoder],
    table: pd.DataFrame,
    handle: ModelHandle,
    extraction: ExtractionParameters,
) -> CodesPlan:
    """Sparse codes of every token of every sequence, made as they are saved.

    Where the activations are a sample of the tokens, this is the second pass: the model runs once over all
    sequences, for all sites together.
    """
    from helix_sae.codes import CodesPlan

    return CodesPlan(whole(activations, table, handle, extraction), saes)


def pool(
    sparse_codes: Mapping[str, SiteCodes],
    saes: dict[str, SparseAutoencoder],
    table: pd.DataFrame,
    handle: ModelHandle,
) -> dict[str, AnnData]:
    """Codes pooled over every sequence, by site, with what is known of sequences and features."""
    from helix_sae.mrna.properties import CODON_USAGE_PREFIX
    from helix_sae.sae import sequence_anndata

    return {
        site: sequence_anndata(
            sparse_codes[site],
            table,
            sae,
            uns={"model_fingerprint": handle.fingerprint, "site": site},
            site=site,
            wide={"codon_usage": CODON_USAGE_PREFIX},
        )
        for site, sae in saes.items()
    }


def draw_training(
    history: pd.DataFrame, metrics: pd.DataFrame, sequence_codes: dict[str, AnnData]
) -> tuple[Any, Any, Any]:
    """The training curves, how often the features fire, and explained variance against L0."""
    from helix_sae.figures.training import feature_density, pareto, training_history

    densities = {site: codes.var["density"].to_numpy(dtype=float) for site, codes in sequence_codes.items()}
    return training_history(history, metrics), feature_density(densities), pareto(metrics)


def _scratch(activations: Activations, table: pd.DataFrame, parameters: SaeTrainingParameters) -> Any:
    """Where the state of the training is kept, named by everything that the activations and their order depend on."""
    from helix_sae.sae import Scratch

    if parameters.scratch is None:
        return None
    columns = [c for c in ("sequence_id", "sequence", "cds_start", "cds_end", "split") if c in table]
    described = {
        "model": activations.fingerprint,
        "sites": list(activations.sites),
        "stored": [activations.described[key] for key in ("dtype", "codon_markers", "tokens_per_sequence")],
        "sequences": table[columns].to_json(orient="values"),
        "batches": [parameters.batch_size, parameters.epochs, parameters.min_steps, parameters.seed],
    }
    key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return Scratch(parameters.scratch.directory, key, parameters.scratch.every_steps)


def _summary(metrics: pd.DataFrame) -> str:
    shown = ["site", "config", "seed", "explained_variance", "l0", "dead_share", "cosine"]
    return metrics[shown].to_string(index=False, float_format=lambda x: f"{x:.3f}")
