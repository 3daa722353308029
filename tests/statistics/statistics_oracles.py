"""Slow, plain twins of the fast paths."""

from __future__ import annotations

import warnings

import numpy as np
from scipy import stats


def spearman_pair(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    known = ~np.isnan(y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if known.sum() < 2:
            return np.nan, np.nan
        result = stats.spearmanr(x[known], y[known])
    return float(result.statistic), float(result.pvalue)


def mann_whitney_pair(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    first, second = x[y == 1], x[y == 0]
    if not len(first) or not len(second):
        return np.nan, np.nan
    result = stats.mannwhitneyu(first, second, method="asymptotic")
    return float(result.statistic), float(result.pvalue)


def kruskal_pair(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    groups = [x[y == c] for c in np.unique(y[~np.isnan(y)])]
    if len(groups) < 2 or len(np.unique(np.concatenate(groups))) < 2:
        return np.nan, np.nan
    result = stats.kruskal(*groups)
    return float(result.statistic), float(result.pvalue)


def residual(values: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    design = np.column_stack([np.ones(len(values)), covariates])
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


def partial_pair(x: np.ndarray, y: np.ndarray, covariates: np.ndarray) -> tuple[float, float]:
    """Pearson correlation of rank residuals; covariates already ranked or dummies, no missing values."""
    e = residual(stats.rankdata(x), covariates)
    f = residual(stats.rankdata(y), covariates)
    r = float(e @ f / np.sqrt((e @ e) * (f @ f)))
    dof = len(x) - 2 - np.linalg.matrix_rank(covariates - covariates.mean(axis=0))
    t = r * np.sqrt(dof / (1 - r * r))
    return r, float(2 * stats.t.sf(abs(t), dof))


def design_effect_pair(x: np.ndarray, y: np.ndarray, clusters: np.ndarray) -> float:
    u = (stats.rankdata(x) - (len(x) + 1) / 2) * (stats.rankdata(y) - (len(y) + 1) / 2)
    u = u - u.mean()
    sums = np.array([u[clusters == c].sum() for c in np.unique(clusters)])
    n, k = len(u), len(sums)
    return max(1.0, float((sums**2).sum() / (u**2).sum() * k / (k - 1) * (n - 1) / n))


def concept_scores(
    activation: np.ndarray, label: np.ndarray, instance: np.ndarray | None, bar: float
) -> tuple[float, float, float]:
    """Precision per nucleotide, recall per nucleotide or instance, F1."""
    fires = activation > bar
    precision = (fires & label).sum() / fires.sum() if fires.any() else 0.0
    if instance is None:
        recall = (fires & label).sum() / label.sum()
    else:
        recall = len(np.unique(instance[fires & label])) / len(np.unique(instance[label]))
    total = precision + recall
    return precision, recall, 2 * precision * recall / total if total else 0.0
