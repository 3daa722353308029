"""False discovery over one declared family of tests, and whether its control holds on these data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from jaxtyping import Float, Int
from scipy import special
from statsmodels.stats.multitest import multipletests

from helix_sae.errors import AnalysisError

Correction = Literal["bh", "by"]
_METHODS: dict[str, str] = {"bh": "fdr_bh", "by": "fdr_by"}


def adjust(p_values: Any, method: Correction = "bh") -> npt.NDArray[np.float64]:
    """Adjusted p-values (q-values) over one family.

    Parameters
    ----------
    p_values : float array, any shape
        NaN marks a test that could not be made: it is no member of the family and stays NaN.
    method : {"bh", "by"}
        Benjamini-Hochberg (1995; independence or positive dependence) or Benjamini-Yekutieli (2001; any
        dependence, more conservative by the harmonic sum of the family's size).

    Returns
    -------
    float array of the same shape, in [0, 1]
    """
    p = np.asarray(p_values, dtype=np.float64)
    q = np.full(p.shape, np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        q[tested] = multipletests(p[tested], method=_METHODS[method])[1]
    return q


class Calibration(NamedTuple):
    """How the tests behave when there is nothing to find.

    Attributes
    ----------
    summary : DataFrame, one row
        ``n_permutations``, ``n_tests``, ``inflation_factor`` (median of the permuted chi-square quantiles
        over 0.4549; 1 when calibrated), ``share_with_discovery`` (permutations with any q <= alpha; at most
        about alpha when calibrated) with its binomial ``standard_error``, ``share_p_below_alpha``.
    permutations : DataFrame, one row a permutation
        ``permutation``, ``n_discoveries``, ``smallest_p``, ``inflation_factor``.
    quantiles : DataFrame
        QQ data on the -log10 scale: ``expected``, ``observed`` (real labels), ``permuted`` (median over
        permutations), ``permuted_low``, ``permuted_high`` (central 95 % of the permutations).
    """

    summary: pd.DataFrame
    permutations: pd.DataFrame
    quantiles: pd.DataFrame


def permute_within(strata: Any, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """A random permutation of the rows that keeps every row inside its stratum."""
    codes = pd.factorize(np.asarray(strata, dtype=object), use_na_sentinel=False)[0]
    target = np.argsort(codes, kind="stable")
    source = np.lexsort((rng.random(len(codes)), codes))
    order = np.empty(len(codes), dtype=np.int64)
    order[target] = source
    return order


def inflation_factor(p_values: Any) -> float:
    """Median chi-square (1 degree of freedom) of the p-values over its expectation (Devlin and Roeder 1999)."""
    p = np.asarray(p_values, dtype=np.float64)
    p = p[~np.isnan(p)]
    if not len(p):
        return float("nan")
    chi_square = special.ndtri(np.clip(np.median(p), 1e-300, 1.0) / 2.0) ** 2
    return float(chi_square / special.ndtri(0.25) ** 2)


def permutation_calibration(
    p_values_of: Callable[[Int[np.ndarray, " n"]], Float[np.ndarray, "..."]],
    strata: Any,
    *,
    n_permutations: int = 200,
    alpha: float = 0.05,
    method: Correction = "bh",
    seed: int = 0,
    n_quantiles: int = 200,
) -> Calibration:
    """Repeat the whole family of tests with permuted labels.

    Parameters
    ----------
    p_values_of : callable
        Takes a permutation of the rows (int64 (n_sequences,)), gives the p-values of the whole family with
        the labels so permuted. Called once with the identity for the observed quantiles.
    strata : array (n_sequences,)
        Labels move only within a stratum (the source). A constant gives free permutation.
    n_permutations : int
        At least 20.
    alpha : float
        Level of the false discovery rate.
    method : {"bh", "by"}
        Correction whose discoveries are counted.
    seed : int
        The same seed gives the same permutations.
    n_quantiles : int
        Points of the QQ data, even on the -log10 scale.

    Returns
    -------
    Calibration
    """
    if n_permutations < 20:
        raise AnalysisError(f"A calibration needs at least 20 permutations, not {n_permutations}.")
    rng = np.random.default_rng(seed)
    observed = _finite(p_values_of(np.arange(len(strata), dtype=np.int64)))
    probabilities = _quantile_grid(len(observed), n_quantiles)
    rows: list[dict[str, float]] = []
    curves = np.empty((n_permutations, len(probabilities)))
    below = 0
    tested = 0
    for index in range(n_permutations):
        p = _finite(p_values_of(permute_within(strata, rng)))
        rows.append(
            {
                "permutation": index,
                "n_discoveries": int((adjust(p, method) <= alpha).sum()),
                "smallest_p": float(p.min()),
                "inflation_factor": inflation_factor(p),
            }
        )
        curves[index] = _log10_quantiles(p, probabilities)
        below += int((p <= alpha).sum())
        tested += len(p)
    permutations = pd.DataFrame(rows)
    share = float((permutations["n_discoveries"] > 0).mean())
    summary = pd.DataFrame(
        {
            "n_permutations": [n_permutations],
            "n_tests": [len(observed)],
            "correction": [method],
            "alpha": [alpha],
            "inflation_factor": [float(permutations["inflation_factor"].median())],
            "share_with_discovery": [share],
            "standard_error": [float(np.sqrt(share * (1 - share) / n_permutations))],
            "share_p_below_alpha": [below / tested],
        }
    )
    low, middle, high = np.quantile(curves, [0.025, 0.5, 0.975], axis=0)
    quantiles = pd.DataFrame(
        {
            "expected": -np.log10(probabilities),
            "observed": _log10_quantiles(observed, probabilities),
            "permuted": middle,
            "permuted_low": low,
            "permuted_high": high,
        }
    )
    return Calibration(summary, permutations, quantiles)


def _finite(p_values: Any) -> npt.NDArray[np.float64]:
    p = np.asarray(p_values, dtype=np.float64).ravel()
    p = p[~np.isnan(p)]
    if not len(p):
        raise AnalysisError("No test of the family could be made: every p-value is missing.")
    return p


def _quantile_grid(n_tests: int, n_quantiles: int) -> npt.NDArray[np.float64]:
    """Probabilities from 1/(n+1) to n/(n+1), even on the log scale, on the points that exist."""
    index = np.unique(np.geomspace(1, n_tests, n_quantiles).round().astype(np.int64))
    return index / (n_tests + 1.0)


def _log10_quantiles(p: npt.NDArray[np.float64], probabilities: npt.NDArray[np.float64]) -> Any:
    """-log10 of the order statistics that the grid names; p = 0 (underflow) counts as the smallest double."""
    positions = np.minimum((probabilities * (len(p) + 1)).round().astype(np.int64) - 1, len(p) - 1)
    return -np.log10(np.maximum(np.sort(p)[positions], np.finfo(np.float64).tiny))
