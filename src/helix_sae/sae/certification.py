"""The seeds of one site, compared: which features of the first come back, and what does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.registry import random_autoencoder
from helix_sae.sae.scaling import estimate_scaling
from helix_sae.sae.stability import feature_stability, held_out_features, match_of_seeds, stability_summary
from helix_sae.sae.subspaces import describe_unstable

_MOST_UNTRAINED = 4


class Certificate(NamedTuple):
    """What the seeds of one site say of its reference dictionary.

    Attributes
    ----------
    features : DataFrame
        A row a feature: ``site`` and the columns of :func:`~helix_sae.sae.stability.feature_stability`.
    summary : dict
        :func:`~helix_sae.sae.stability.stability_summary`.
    subspaces : dict or None
        :func:`~helix_sae.sae.subspaces.describe_unstable`; None with one seed.
    """

    features: pd.DataFrame
    summary: dict[str, Any]
    subspaces: dict[str, Any] | None


def certify(
    saes: Mapping[str, SparseAutoencoder],
    x: Float[Tensor | np.ndarray, "n d_in"],
    site: str,
    pooled: SparseAutoencoder | None = None,
) -> Certificate:
    """Compare the dictionaries of several seeds on held-out activations, and leave the result with the reference.

    Parameters
    ----------
    saes : mapping of str to SparseAutoencoder
        One configuration from seeds that differ in initialisation and order of the data, by a name for
        messages. The first is the reference, unless ``pooled`` is given: its ``stability`` is set.
    x : float (n, d_in)
        Held-out activations.
    site : str
        Named in tables and messages.
    pooled : SparseAutoencoder, optional
        The dictionary that was pooled from all of them. A feature's stability is then the share of the seeds
        that have it; how alike the seeds are (``pw_mcc``, subspaces) is said of the seeds.

    Raises
    ------
    AnalysisError
        If a seed has collapsed, or two are the same.
    """
    first = next(iter(saes))
    seeds = {name: held_out_features(sae, x, site) for name, sae in saes.items()}
    if pooled is None:
        reference, own = saes[first], seeds[first]
        others = {name: seed for name, seed in seeds.items() if name != first}
    else:
        reference, own, others = pooled, held_out_features(pooled, x, site), seeds
    untrained = []
    if others:
        scaling = estimate_scaling(torch.as_tensor(x).float(), site)
        starts = range(min(len(others), _MOST_UNTRAINED))
        untrained = [
            held_out_features(random_autoencoder(reference.config, scaling, s), x, site) for s in starts
        ]
    table = feature_stability(own, others, site)
    reference.stability = table if others else None
    features = table.copy()
    features.insert(0, "site", site)
    summary = stability_summary(own, others, untrained, site, table)
    if pooled is not None:
        summary |= match_of_seeds([seed.directions[seed.alive] for seed in seeds.values()])
    described = describe_unstable(seeds, np.asarray(x), site) if len(seeds) > 1 else None
    return Certificate(features, summary, described)
