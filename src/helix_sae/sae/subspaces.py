"""What does not come back, described as a subspace.

Features that no other seed has may still lie in a subspace that every seed has: where activations fill some
dimensions densely, any basis of them serves, and each seed takes its own (Gerasimov et al. 2026,
arXiv:2606.12138). A feature of such a basis is not to be named; the subspace is, by its dimension, how well
seeds agree on it, and how much hangs on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float

from helix_sae.errors import AnalysisError
from helix_sae.sae.stability import (
    CERTIFIED,
    Partners,
    SeedFeatures,
    check_seeds,
    partners_both_ways,
    stability_of,
)

SUBSPACE_COLUMNS = (
    "site",
    "n_unstable",
    "share_unstable",
    "participation_ratio",
    "dimensions",
    "share_variance",
    "overlap",
    "overlap_lowest",
    "overlap_by_chance",
    "overlap_isotropic",
)

_MOST = 0.9
"""Share of the variance that the dimensions of a subspace hold."""

_N_CHANCE = 20


def describe_unstable(
    seeds: Mapping[str, SeedFeatures], x: Float[np.ndarray, "n d_in"], site: str = "the data", seed: int = 0
) -> dict[str, Any]:
    """Describe what of each seed does not come back in the others: how large it is, and whether the seeds agree on it.

    Parameters
    ----------
    seeds : mapping of str to SeedFeatures
        All seeds of one configuration.
    x : float (n, d_in)
        The held-out activations that they were encoded from.
    site : str
        Named in messages.
    seed : int
        Of the random subspaces that chance is taken from.

    Returns
    -------
    dict
        ``site``; means over the seeds of ``n_unstable`` (living features with a stability below 0.75),
        ``share_unstable``, ``participation_ratio`` and ``dimensions`` (of the variance that these features
        reconstruct; dimensions that hold 90 % of it) and ``share_variance`` (:func:`share_of_variance`);
        ``overlap`` (:func:`overlap` of the seeds' subspaces, mean over pairs) and ``overlap_lowest``,
        ``overlap_by_chance`` (between subspaces of as many random activations) and ``overlap_isotropic``
        (between random subspaces of the whole space). Overlaps are NaN where a seed has no such feature.

    Raises
    ------
    AnalysisError
        If there are fewer than two seeds, or one has collapsed.
    """
    if len(seeds) < 2:
        raise AnalysisError(
            f"At {site}, {len(seeds)} seed cannot be compared with others; train at least two."
        )
    unstable = _unstable(seeds, site)
    spectra = {
        name: np.linalg.eigh(reconstructed_covariance(one, unstable[name])) for name, one in seeds.items()
    }
    counted = [dimensions(values[::-1]) for values, _ in spectra.values()]
    k = round(float(np.median(counted)))
    bases = [vectors[:, ::-1][:, :k] for _, vectors in spectra.values()]
    there = min(int(mask.sum()) for mask in unstable.values()) > 0
    overlaps = [overlap(a, b) for a, b in combinations(bases, 2)] if there else [float("nan")]
    n_unstable = round(float(np.mean([mask.sum() for mask in unstable.values()])))
    return {
        "site": site,
        "n_unstable": float(np.mean([mask.sum() for mask in unstable.values()])),
        "share_unstable": float(np.mean([unstable[s].sum() / one.alive.sum() for s, one in seeds.items()])),
        "participation_ratio": float(
            np.mean([participation_ratio(values) for values, _ in spectra.values()])
        ),
        "dimensions": float(np.mean(counted)),
        "share_variance": float(
            np.mean([share_of_variance(one, unstable[s], x) for s, one in seeds.items()])
        ),
        "overlap": float(np.mean(overlaps)),
        "overlap_lowest": min(overlaps),
        "overlap_by_chance": _overlap_by_chance(x, n_unstable, k, seed) if there else float("nan"),
        "overlap_isotropic": k / x.shape[1] if there else float("nan"),
    }


def reconstructed_covariance(
    features: SeedFeatures, kept: Bool[np.ndarray, " d_sae"]
) -> Float[np.ndarray, "d_in d_in"]:
    """Covariance, over the held-out tokens, of what some of the features reconstruct."""
    some, mean, rows = features.by_feature[kept], features.means[kept], features.directions[kept]
    covariance = (some @ some.T).toarray() / some.shape[1] - np.outer(mean, mean)
    return rows.T @ covariance @ rows


def participation_ratio(eigenvalues: Float[np.ndarray, " d"]) -> float:
    """``(sum v)^2 / sum v^2``: the number of dimensions if all held the same; 0 without variance."""
    values = np.maximum(eigenvalues, 0.0)
    return float(values.sum() ** 2 / (values**2).sum()) if values.any() else 0.0


def dimensions(eigenvalues: Float[np.ndarray, " d"], share: float = _MOST) -> int:
    """How many of the eigenvalues, largest first, hold ``share`` of their sum; 0 without variance."""
    values = np.maximum(eigenvalues, 0.0)
    return int(np.searchsorted(np.cumsum(values) / values.sum(), share) + 1) if values.any() else 0


def overlap(a: Float[np.ndarray, "d_in k"], b: Float[np.ndarray, "d_in k"]) -> float:
    """Mean squared cosine of the principal angles between two subspaces: 1 the same, 0 orthogonal; NaN for none.

    Björck and Golub (1973). Between random subspaces of dimension k in d dimensions it is k / d on average.
    """
    if not a.shape[1] or not b.shape[1]:
        return float("nan")
    return float(np.mean(np.cos(scipy.linalg.subspace_angles(a, b)) ** 2))


def share_of_variance(
    features: SeedFeatures, kept: Bool[np.ndarray, " d_sae"], x: Float[np.ndarray, "n d_in"]
) -> float:
    """Explained variance that is lost when some features are held at their mean, the others left as they are.

    The error then grows by what these features reconstruct, ``u``: its variance by that of ``u`` and twice
    the covariance of the two, which needs the codes of these features alone.
    """
    some = features.by_feature[kept]
    n = some.shape[1]
    mean, rows = features.means[kept], features.directions[kept]
    with_x = (some @ x) / n - np.outer(mean, np.mean(x, axis=0, dtype=np.float64))
    with_all = (some @ features.codes).toarray() / n - np.outer(mean, features.means)
    with_error = with_x - with_all @ features.directions
    grown = 2.0 * (with_error * rows).sum() + ((with_all[:, kept] @ rows) * rows).sum()
    return float(grown / np.var(x, axis=0, dtype=np.float64).sum())


def _unstable(seeds: Mapping[str, SeedFeatures], site: str) -> dict[str, Bool[np.ndarray, " d_sae"]]:
    """Living features of each seed that come back in less than three quarters of the others."""
    found: dict[str, list[Partners]] = {name: [] for name in seeds}
    for (one, first), (other, second) in combinations(seeds.items(), 2):
        check_seeds(first, {other: second}, site)
        for name, partners in zip((one, other), partners_both_ways(first, second), strict=True):
            found[name].append(partners)
    tables = {name: stability_of(found[name], seed.alive) for name, seed in seeds.items()}
    return {
        name: (table["alive"] & (table["stability"] < CERTIFIED)).to_numpy(dtype=bool)
        for name, table in tables.items()
    }


def share_of_effect(
    effects: Float[np.ndarray, " n_features"], kept: Bool[np.ndarray, " n_features"]
) -> float:
    """Share of the summed absolute causal effects that some features have; NaN where there is no effect at all."""
    sizes = np.abs(np.asarray(effects, dtype=np.float64))
    return float(sizes[kept].sum() / sizes.sum()) if sizes.any() else float("nan")


def _overlap_by_chance(x: Float[np.ndarray, "n d_in"], n_features: int, k: int, seed: int) -> float:
    """Overlap of leading subspaces of ``n_features`` activations drawn at random, twice.

    Activations keep to few directions, and any two dictionaries share those: this, not the whole space, is
    what seeds that agree on nothing would show.
    """
    rng = np.random.default_rng(seed)
    centred = np.asarray(x, dtype=np.float64) - np.mean(x, axis=0, dtype=np.float64)

    def leading() -> Float[np.ndarray, "d_in k"]:
        rows = centred[rng.integers(0, len(centred), n_features)]
        return np.linalg.svd(rows, full_matrices=False)[2][:k].T

    return float(np.mean([overlap(leading(), leading()) for _ in range(_N_CHANCE)]))
