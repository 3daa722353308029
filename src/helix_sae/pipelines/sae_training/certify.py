"""Which features of the chosen autoencoders come back in other seeds."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helix_sae.errors import AnalysisError
from helix_sae.pipelines.sae_training.parameters import SaeTrainingParameters

if TYPE_CHECKING:
    from helix_sae.sae import SparseAutoencoder
    from helix_sae.sae.scaling import InputScaling
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    InputScaling = SparseAutoencoder = Any

LOGGER = logging.getLogger(__name__)


def certify_seeds(
    seeds: Mapping[str, Sequence[SparseAutoencoder]], holdout: Sequence[Mapping[str, np.ndarray]]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Compare the seeds of every site on held-out tokens; the first of each gets its stability.

    Parameters
    ----------
    seeds : mapping of site to sequence of SparseAutoencoder
        Of the chosen configuration.
    holdout : sequence of mapping of site to float (batch, d_in)
        Batches of held-out activations.

    Returns
    -------
    sae_stability : DataFrame
        A row a feature: ``site`` and the columns of :func:`helix_sae.sae.stability.feature_stability`.
    sae_stability_summary : DataFrame
        A row a site: :func:`helix_sae.sae.stability.stability_summary`.
    sae_subspaces : DataFrame
        A row a site: :func:`helix_sae.sae.subspaces.describe_unstable`; no row with one seed.
    """
    from helix_sae.sae import certify
    from helix_sae.sae.subspaces import SUBSPACE_COLUMNS

    found = [
        certify(
            {f"seed {number}": sae for number, sae in enumerate(saes)},
            np.concatenate([np.asarray(batch[site]) for batch in holdout]),
            site,
        )
        for site, saes in seeds.items()
    ]
    summary = pd.DataFrame([certificate.summary for certificate in found])
    described = [certificate.subspaces for certificate in found if certificate.subspaces is not None]
    LOGGER.info("features that come back in other seeds:\n%s", _shown(summary))
    return (
        pd.concat([certificate.features for certificate in found], ignore_index=True),
        summary,
        pd.DataFrame(described, columns=pd.Index(SUBSPACE_COLUMNS)),
    )


def pool_seeds(
    seeds: Mapping[str, Sequence[SparseAutoencoder]],
    sample: Mapping[str, np.ndarray],
    batches: Iterable[Mapping[str, np.ndarray]],
    scalings: Mapping[str, InputScaling],
    parameters: SaeTrainingParameters,
) -> dict[str, SparseAutoencoder]:
    """Pool the features that come back in the seeds of every site, and train the pooled dictionaries on.

    Parameters
    ----------
    seeds : mapping of site to sequence of SparseAutoencoder
        Of the chosen configuration.
    sample : mapping of site to float (n, d_in)
        Discovery activations that features are matched on.
    batches : iterable of mapping of site to float (batch, d_in)
        Discovery activations to train on, in an order that no seed had.
    scalings : mapping of site to InputScaling
    parameters : SaeTrainingParameters

    Returns
    -------
    dict of site to SparseAutoencoder
        Empty where too few seeds were trained to speak of features that come back, or a site has none: then
        the first seed's are used.
    """
    from helix_sae.sae import held_out_features
    from helix_sae.sae.pooling import pool_features, train_on
    from helix_sae.sae.stability import FEWEST_OTHERS

    if not parameters.pooled_steps or parameters.n_seeds <= FEWEST_OTHERS:
        return {}
    try:
        pooled = {
            site: pool_features(saes, [held_out_features(sae, sample[site], site) for sae in saes], site)
            for site, saes in seeds.items()
        }
    except AnalysisError as error:
        LOGGER.warning("%s The first seed's dictionaries are used.", error)
        return {}
    LOGGER.info(
        "pooled from %d seeds: %s.",
        parameters.n_seeds,
        ", ".join(f"{sae.d_sae} features at {site}" for site, sae in pooled.items()),
    )
    # An order of its own, and a start that no seed had.
    return train_on(pooled, batches, scalings, parameters.pooled_steps, parameters.seed)


def certify_pooled(
    pooled: Mapping[str, SparseAutoencoder],
    seeds: Mapping[str, Sequence[SparseAutoencoder]],
    holdout: Sequence[Mapping[str, np.ndarray]],
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Compare pooled dictionaries with each of the seeds; the tables are those of :func:`certify_seeds`.

    A feature's stability is the share of the seeds that have it. How alike the seeds are (``pw_mcc``,
    subspaces) is said of the seeds.
    """
    _, among, subspaces = certify_seeds(seeds, holdout)
    features, summary, _ = certify_seeds(
        {site: [pooled[site], *saes] for site, saes in seeds.items()}, holdout
    )
    of_seeds = ["pw_mcc", "pw_mcc_lowest"]
    summary[of_seeds] = among[of_seeds]
    return features, summary, subspaces


def draw_stability(stability: pd.DataFrame) -> Any:
    """Stability by site."""
    from helix_sae.figures.stability import feature_stability

    return feature_stability(stability)


def _shown(summary: pd.DataFrame) -> str:
    columns = [
        "site",
        "n_seeds",
        "n_features",
        "n_certified",
        "share_back",
        "chance_back",
        "pw_mcc",
        "chance_cosine",
    ]
    return summary[columns].to_string(index=False, float_format=lambda x: f"{x:.3f}")
