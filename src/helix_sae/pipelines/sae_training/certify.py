"""Which features of the chosen autoencoders come back in other seeds."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from helix_sae.sae import SparseAutoencoder
else:
    # Kedro resolves annotations to validate parameters; this type is too heavy to import for that.
    SparseAutoencoder = Any

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
