"""Nodes of the SAE training pipeline."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helix_sae.pipelines.sae_training.parameters import SaeTrainingParameters

if TYPE_CHECKING:
    from anndata import AnnData

    from helix_sae.datasets.activations import ActivationStore
    from helix_sae.sae import SparseAutoencoder, TokenCodes
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    AnnData = ActivationStore = SparseAutoencoder = TokenCodes = Any

LOGGER = logging.getLogger(__name__)


def train(
    activations: ActivationStore, table: pd.DataFrame, parameters: SaeTrainingParameters
) -> tuple[dict[str, SparseAutoencoder], pd.DataFrame, pd.DataFrame]:
    """Train every configuration at every site on the discovery part; measure on the validation part.

    Returns
    -------
    sae_checkpoints : dict of site to SparseAutoencoder
        Of the chosen configuration.
    training_history, sae_metrics : DataFrame
        Of all configurations.
    """
    from helix_sae.helix.loading import resolve_device
    from helix_sae.progress import progress_bar
    from helix_sae.sae import train_saes

    sites = list(activations.sites)
    batches = activations.batches(
        sites,
        parameters.batch_size,
        parameters.seed,
        epochs=parameters.epochs,
        sequence_ids=_members(table, activations, "discovery"),
    )
    n_steps = min(len(batches), parameters.max_steps or len(batches))
    with progress_bar("training autoencoders", n_steps, "steps") as advance:
        result = train_saes(
            batches,  # pyright: ignore[reportArgumentType]
            parameters.saes,
            sites=sites,
            n_steps=n_steps,
            seed=parameters.seed,
            holdout=_holdout(activations, table, parameters),  # pyright: ignore[reportArgumentType]
            calibration_tokens=parameters.calibration_tokens,
            log_every=parameters.log_every,
            device=resolve_device(parameters.device),
            progress=lambda step, _total, _explained: advance(step),
        )
    LOGGER.info("held-out metrics:\n%s", _summary(result.metrics))
    return result.by_site(parameters.chosen), result.history, result.metrics


def encode(
    activations: ActivationStore, saes: dict[str, SparseAutoencoder], table: pd.DataFrame
) -> tuple[dict[str, TokenCodes], dict[str, AnnData]]:
    """Sparse codes of every token, and pooled over every sequence, by site."""
    from helix_sae.sae import encode_stream, sequence_anndata

    kept = table[table["sequence_id"].isin(list(activations.sequence_ids))].reset_index(drop=True)
    uns = {"model_fingerprint": activations.fingerprint}
    token_codes: dict[str, TokenCodes] = {}
    sequence_codes: dict[str, AnnData] = {}
    for site, sae in saes.items():
        token_codes[site] = encode_stream(sae, _sequences(activations, site), site=site)
        sequence_codes[site] = sequence_anndata(token_codes[site], kept, sae, uns={**uns, "site": site})
    return token_codes, sequence_codes


def draw_training(
    history: pd.DataFrame, metrics: pd.DataFrame, sequence_codes: dict[str, AnnData]
) -> tuple[Any, Any]:
    """The training curves, and how often the features fire."""
    from helix_sae.figures.training import feature_density, training_history

    densities = {site: codes.var["density"].to_numpy(dtype=float) for site, codes in sequence_codes.items()}
    return training_history(history, metrics), feature_density(densities)


def _members(table: pd.DataFrame, activations: ActivationStore, split: str) -> list[str]:
    """Ids of one part, in the order of the store."""
    part = set(table.loc[table["split"] == split, "sequence_id"])
    return [name for name in activations.sequence_ids if name in part]


def _holdout(
    activations: ActivationStore, table: pd.DataFrame, parameters: SaeTrainingParameters
) -> list[dict[str, np.ndarray]]:
    batches = activations.batches(
        list(activations.sites),
        parameters.batch_size,
        parameters.seed,
        epochs=1,
        sequence_ids=_members(table, activations, "validation"),
    )
    return list(islice(batches, max(1, parameters.holdout_tokens // parameters.batch_size)))


def _sequences(activations: ActivationStore, site: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for shard in activations.iter_shards([site]):
        for i, sequence_id in enumerate(shard.sequence_ids):
            rows = slice(int(shard.offsets[i]), int(shard.offsets[i + 1]))
            yield sequence_id, shard.activations[site][rows], shard.rows.is_nucleotide[rows]


def _summary(metrics: pd.DataFrame) -> str:
    shown = ["site", "config", "explained_variance", "l0", "dead_share", "cosine"]
    return metrics[shown].to_string(index=False, float_format=lambda x: f"{x:.3f}")
