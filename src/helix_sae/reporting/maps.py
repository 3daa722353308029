"""Maps of the atlas: features by their decoder directions, sequences by their pooled codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse
from jaxtyping import Float
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from helix_sae.names import feature_name

SIZE = 1000
"""Places are whole numbers from 0 to this."""

MOST_SEQUENCES = 3_000
"""Sequences on the map; a sample of more."""

_MOST_BY_NEIGHBOURS = 2_000
_PERPLEXITY = 15.0
_N_STRONGEST = 5


class SequenceMap(NamedTuple):
    """Sequences as points.

    Attributes
    ----------
    table : DataFrame
        ``sequence_id`` and the properties, a row a point.
    places : int (n, 2)
        From 0 to :data:`SIZE`.
    share : float
        Of the variance of the pooled codes that the two axes have.
    pooled : mapping of site to csc (n, n_features)
        Pooled codes of these sequences.
    strongest : list of lists of str
        Of each sequence, the features that are strongest for their own maximum.
    """

    table: pd.DataFrame
    places: np.ndarray
    share: float
    pooled: Mapping[str, Any]
    strongest: list[list[str]]


def feature_places(
    decoders: Mapping[str, Float[np.ndarray, "n_features width"]], order: Sequence[tuple[str, int]]
) -> np.ndarray:
    """Where each feature lies on the map of its site: features of like decoder directions lie together.

    t-SNE on cosine distances (van der Maaten and Hinton, JMLR 2008), from the principal components on; of
    more than 2,000 features of a site the two first principal components of their directions. Directions of
    different sites are not compared: each site has a map of its own.

    Parameters
    ----------
    decoders : mapping of site to float (n_features, width)
    order : sequence of (site, feature)

    Returns
    -------
    int (n, 2)
        From 0 to :data:`SIZE`, a row a feature.
    """
    places = np.zeros((len(order), 2), dtype=np.int64)
    sites = np.array([site for site, _ in order], dtype=object)
    for site in dict.fromkeys(sites.tolist()):
        rows = np.flatnonzero(sites == site)
        directions = decoders[site][[order[row][1] for row in rows]].astype(np.float64)
        norm = np.linalg.norm(directions, axis=1, keepdims=True)
        places[rows] = _scaled(_neighbours(directions / np.where(norm > 0, norm, 1.0)))
    return places


def _neighbours(unit: Float[np.ndarray, "n width"]) -> Float[np.ndarray, "n 2"]:
    n = len(unit)
    if n < 4:
        return np.column_stack([np.arange(n), np.zeros(n)])
    solver = "full" if min(unit.shape) < 500 else "arpack"
    axes = PCA(2, svd_solver=solver, random_state=0).fit_transform(unit)
    if n > _MOST_BY_NEIGHBOURS:
        return axes
    started = 1e-4 * axes / max(float(axes[:, 0].std()), 1e-12)
    perplexity = min(_PERPLEXITY, (n - 1) / 3)
    return TSNE(2, perplexity=perplexity, init=started, metric="cosine", random_state=0).fit_transform(unit)


def sequence_map(
    codes: Mapping[str, Any], table: pd.DataFrame, features: Sequence[tuple[str, int]], seed: int = 0
) -> SequenceMap | None:
    """The sequences on the two first axes of their pooled codes; None of fewer than three sequences or features.

    Codes are divided by their feature's maximum, and centred: principal components of what the features say,
    each counting alike.

    Parameters
    ----------
    codes : mapping of site to sparse (n_sequences, n_features)
        Pooled codes, in the order of ``table``.
    table : DataFrame
        ``sequence_id`` and properties.
    features : sequence of (site, feature)
        Those that count.
    seed : int
        Of the sample where there are more than :data:`MOST_SEQUENCES`.
    """
    n = len(table)
    if min(n, len(features)) < 3:
        return None
    rows = np.arange(n)
    if n > MOST_SEQUENCES:
        rows = np.sort(np.random.default_rng(seed).choice(n, MOST_SEQUENCES, replace=False))
    pooled = {site: scipy.sparse.csc_array(matrix)[rows] for site, matrix in codes.items()}
    counted: dict[str, list[int]] = {}
    for site, feature in features:
        counted.setdefault(site, []).append(feature)
    relative = [_relative(pooled[site][:, numbers]) for site, numbers in counted.items()]
    everything = scipy.sparse.csr_array(scipy.sparse.hstack(relative))
    everything.sort_indices()
    axes = PCA(2, svd_solver="arpack", random_state=0)
    places = axes.fit_transform(scipy.sparse.csr_matrix(everything))
    names = [feature_name(site, feature) for site, numbers in counted.items() for feature in numbers]
    share = float(np.nansum(axes.explained_variance_ratio_))
    return SequenceMap(table.iloc[rows], _scaled(places), share, pooled, _strongest(everything, names))


def _relative(matrix: Any) -> Any:
    """Each column of a CSC matrix divided by its maximum."""
    most = np.maximum(np.asarray(matrix.max(axis=0).todense(), dtype=float).ravel(), 1e-12)
    relative = matrix.data / np.repeat(most, np.diff(matrix.indptr))
    return scipy.sparse.csc_array((relative, matrix.indices, matrix.indptr), shape=matrix.shape)


def _strongest(matrix: Any, names: list[str]) -> list[list[str]]:
    found: list[list[str]] = []
    for i in range(matrix.shape[0]):
        here = slice(matrix.indptr[i], matrix.indptr[i + 1])
        columns, values = matrix.indices[here], matrix.data[here]
        best = columns[np.argsort(-values, kind="stable")[:_N_STRONGEST]]
        found.append([names[column] for column in best.tolist()])
    return found


def shades(pooled: Any, feature: int) -> str:
    """A feature's pooled code of each sequence from ``0`` to ``9``, its largest."""
    column = pooled[:, [feature]].toarray().ravel().astype(float)
    most = column.max(initial=0.0)
    if most <= 0:
        return ""
    return (
        (np.ceil(9 * np.clip(column, 0, None) / most).astype(np.uint8) + ord("0")).tobytes().decode("ascii")
    )


def _scaled(places: Float[np.ndarray, "n 2"]) -> np.ndarray:
    """Whole numbers from 0 to :data:`SIZE` on both axes."""
    low, high = places.min(axis=0), places.max(axis=0)
    return np.rint(SIZE * (places - low) / np.where(high > low, high - low, 1.0)).astype(np.int64)
