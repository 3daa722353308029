"""Rank-sum tests of few sequences, by counting every division of them into two sets."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from helix_sae.errors import AnalysisError

MOST_DIVISIONS = 200_000
"""Divisions that are counted: up to ten against ten."""

_AT_ONCE = 20_000


def divisions(n_one: int, n_other: int) -> int:
    """In how many ways ``n_one + n_other`` sequences can be divided into sets of these sizes."""
    return comb(n_one + n_other, n_one)


def exact_rank_sum(
    features: Float[np.ndarray, "n n_features"], is_one: Bool[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n_features"], Float[np.ndarray, " n_features"]]:
    """Wilcoxon's rank-sum test of each feature, two-sided and exact, with ties at their mean rank.

    Parameters
    ----------
    features : float (n, n_features)
    is_one : bool (n,)
        The set that each sequence is in; its label could as well stand at any other sequences.

    Returns
    -------
    effect : float64 (n_features,)
        Probability that one of the set has the larger value, minus that it has the smaller: -1 to 1.
    p_value : float64 (n_features,)
        Share of the divisions whose rank sum is at least as far from its mean.

    Raises
    ------
    AnalysisError
        If a set is empty, or there are too many divisions to count.

    References
    ----------
    Wilcoxon F. Individual comparisons by ranking methods. Biometrics Bull. 1945;1:80.
    """
    n, n_one = len(is_one), int(is_one.sum())
    n_other = n - n_one
    if not n_one or not n_other:
        raise AnalysisError("A rank-sum test needs sequences in both sets.")
    if divisions(n_one, n_other) > MOST_DIVISIONS:
        raise AnalysisError(f"{n_one} against {n_other} sequences are too many to count all divisions.")
    ranks = rankdata(features, axis=0)
    expected = n_one * (n + 1) / 2
    distance = np.abs(ranks[is_one].sum(axis=0) - expected)
    reached = np.zeros(features.shape[1], dtype=np.int64)
    count = 0
    for members in _members(n, n_one):
        chosen = np.zeros((len(members), n))
        np.put_along_axis(chosen, members, 1.0, axis=1)
        # Mean ranks are halves, so sums are exact in float64.
        reached += (np.abs(chosen @ ranks - expected) >= distance - 1e-9).sum(axis=0)
        count += len(members)
    effect = 2 * (ranks[is_one].sum(axis=0) - expected) / (n_one * n_other)
    return effect, reached / count


def _members(n: int, k: int) -> list[np.ndarray]:
    """Every choice of ``k`` of ``n``, in parts."""
    every = np.fromiter((i for chosen in combinations(range(n), k) for i in chosen), dtype=np.int64)
    every = every.reshape(-1, k)
    return [every[i : i + _AT_ONCE] for i in range(0, len(every), _AT_ONCE)]
