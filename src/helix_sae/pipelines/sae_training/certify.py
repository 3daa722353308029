"""Which features of the chosen autoencoders come back in other seeds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice
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

_MATCHED_TOKENS = 32_768


def certify_seeds(
    seeds: Mapping[str, Sequence[SparseAutoencoder]],
    holdout: Sequence[Mapping[str, np.ndarray]],
    pooled: Mapping[str, SparseAutoencoder] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Compare the seeds of every site on held-out tokens; the pooled dictionary, or the first, gets its stability.

    Parameters
    ----------
    seeds : mapping of site to sequence of SparseAutoencoder
        Of the chosen configuration.
    holdout : sequence of mapping of site to float (batch, d_in)
        Batches of held-out activations.
    pooled : mapping of site to SparseAutoencoder, optional
        What was pooled of the seeds, and is used in place of the first.

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
            (pooled or {}).get(site),
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
    scalings: Mapping[str, InputScaling],
    orders: Callable[[int], Iterable[Mapping[str, np.ndarray]]],
    parameters: SaeTrainingParameters,
) -> dict[str, SparseAutoencoder]:
    """Pool the features that come back in the seeds of every site, and train the pooled dictionaries on.

    Parameters
    ----------
    seeds : mapping of site to sequence of SparseAutoencoder
        Of the chosen configuration.
    scalings : mapping of site to InputScaling
    orders : function of a seed
        Gives batches of discovery activations in its order. Features are matched and trained on in an order
        that no seed had.
    parameters : SaeTrainingParameters

    Returns
    -------
    dict of site to SparseAutoencoder
        Empty where none is asked for, too few seeds were trained to speak of features that come back, or a
        site has none: then the first seed's are used.
    """
    from helix_sae.sae import held_out_features
    from helix_sae.sae.pooling import pool_features, train_on
    from helix_sae.sae.stability import FEWEST_OTHERS

    if not parameters.pooled_steps or parameters.n_seeds <= FEWEST_OTHERS:
        return {}
    batches = iter(orders(parameters.seed + parameters.n_seeds))
    seen = list(islice(batches, 1 + _MATCHED_TOKENS // parameters.batch_size))
    sample = {site: np.concatenate([np.asarray(batch[site]) for batch in seen]) for site in seeds}
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
    return train_on(pooled, chain(seen, batches), scalings, parameters.pooled_steps, parameters.seed)


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
