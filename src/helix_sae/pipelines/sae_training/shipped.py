"""Autoencoders that come with a model, in place of ones trained on the run's own sequences."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helix_sae.errors import AnalysisError
from helix_sae.left_out import LeftOut
from helix_sae.names import SHIPPED
from helix_sae.pipelines.sae_training.judge import judge_held_out
from helix_sae.pipelines.sae_training.parameters import SaeTrainingParameters

if TYPE_CHECKING:
    from helix_sae.activations import Activations
    from helix_sae.sae import SparseAutoencoder
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    Activations = SparseAutoencoder = Any

LOGGER = logging.getLogger(__name__)


def fitting(
    shipped: Mapping[str, SparseAutoencoder], activations: Activations
) -> dict[str, SparseAutoencoder]:
    """Those of the shipped autoencoders that were made for this model and these sites; empty if a site has none."""
    found = {
        site: shipped[site]
        for site in activations.sites
        if site in shipped and shipped[site].origin.get("model") == activations.fingerprint
    }
    return found if len(found) == len(activations.sites) else {}


def adopt(
    saes: dict[str, SparseAutoencoder],
    holdout: Sequence[Mapping[str, np.ndarray]],
    parameters: SaeTrainingParameters,
    reason: str,
) -> tuple[
    dict[str, SparseAutoencoder], pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame
]:
    """Take shipped autoencoders, and say how well they fit the held-out sequences of this run.

    Parameters
    ----------
    saes : dict of site to SparseAutoencoder
    holdout : sequence of mapping of site to float (batch, d_in)
    parameters : SaeTrainingParameters
    reason : str
        Why none are trained.

    Returns
    -------
    tuple
        As :func:`~helix_sae.pipelines.sae_training.nodes.train` gives; ``sae_metrics`` has ``outside_range``,
        the share of tokens reconstructed worse than all but one in a thousand of the corpus that they were
        trained on.

    Raises
    ------
    AnalysisError
        If they explain too little of the variance of these sequences.
    """
    from helix_sae.sae.fit import share_outside

    LOGGER.warning("%s The autoencoders that come with the model are used.", reason)
    metrics = judge_held_out(saes, holdout, SHIPPED)
    metrics["outside_range"] = [
        share_outside(sae, [batch[site] for batch in holdout]) for site, sae in saes.items()
    ]
    LOGGER.info("how well they fit:\n%s", metrics.round(3).to_string(index=False))
    poor = metrics[~(metrics["explained_variance"] >= parameters.min_explained_variance)]
    if len(poor):
        found = ", ".join(f"{row.site} {row.explained_variance:.2f}" for row in poor.itertuples(index=False))
        raise AnalysisError(
            f"The autoencoders that come with the model explain too little of these sequences ({found}; at "
            f"least {parameters.min_explained_variance:g} is asked for by "
            "sae_training.min_explained_variance). Train on them: sae_training.dictionaries=train."
        )
    tables = [sae.stability.assign(site=site) for site, sae in saes.items() if sae.stability is not None]
    missing = LeftOut("the training of autoencoders", f"{reason} Those that come with the model were used.")
    stability = pd.concat(tables, ignore_index=True) if tables else missing.table()
    if tables:
        stability = stability[["site", *(name for name in stability if name != "site")]]
    return saes, missing.table(), metrics, stability, missing.table(), missing.table()


def remember_origin(
    saes: Mapping[str, SparseAutoencoder],
    holdout: Sequence[Mapping[str, np.ndarray]],
    activations: Activations,
    metrics: pd.DataFrame,
) -> None:
    """Write into autoencoders which model and site they were trained on, and how well they fitted."""
    from helix_sae.sae.fit import ERROR_999, error_999

    explained = metrics[metrics["seed"] == 0].groupby("site")["explained_variance"].first()
    for site, sae in saes.items():
        sae.origin = {
            "model": activations.fingerprint,
            "site": site,
            "n_sequences": len(activations.sequence_ids),
            "explained_variance": float(explained[site]),
            ERROR_999: error_999(sae, [batch[site] for batch in holdout]),
        }
