"""k-sparse probing: a concept told by its k best features (Gurnee et al. 2023, arXiv:2305.01610).

Features are ranked by how much their mean differs between tokens with and without the concept, in units of
their standard deviation, on one part of the clusters; a logistic regression on the first k is fitted there
and judged on the other part. One on all raw activations stands beside it: what a linear read-out of the site
can tell at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse
from jaxtyping import Bool, Float, Int

RAW = "raw activations"


class Sample(NamedTuple):
    """Tokens of one part of the clusters, at one site.

    Attributes
    ----------
    codes : csr_array (n_tokens, d_sae)
    activations : float32 (n_tokens, d_in)
    """

    codes: scipy.sparse.csr_array
    activations: Float[np.ndarray, "n_tokens d_in"]

    def rows(self, index: Int[np.ndarray, " n"]) -> Sample:
        """Some of the tokens."""
        return Sample(self.codes[index], self.activations[index])


def sparse_probes(
    fitted: Sample,
    judged: Sample,
    concepts: Mapping[str, tuple[Bool[np.ndarray, " n_fitted"], Bool[np.ndarray, " n_judged"]]],
    *,
    sizes: Sequence[int] = (1, 2, 5, 16),
    max_tokens: int = 4000,
    min_positive: int = 50,
    seed: int = 0,
) -> pd.DataFrame:
    """Probe every concept with its best features.

    Parameters
    ----------
    fitted, judged : Sample
        Tokens on which features are chosen and regressions fitted, and tokens of other clusters to judge them
        on.
    concepts : mapping of name to (labels of ``fitted``, labels of ``judged``)
        Concepts with fewer than ``min_positive`` tokens with, or without, in either part are left out.
    sizes : sequence of int
        Numbers of features.
    max_tokens : int
        At most so many tokens a part, half of them with the concept where there are enough.
    min_positive : int
    seed : int
        Of the draw of tokens.

    Returns
    -------
    DataFrame
        ``concept``, ``probe`` (``1 feature``, ``5 features``, ..., ``raw activations``), ``k`` (0 for raw),
        ``features`` (their numbers, best first), ``auc``, ``balanced_accuracy`` (both on ``judged``; 0.5 by
        chance), ``n_judged``.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for name, (fit_labels, judge_labels) in concepts.items():
        draws = [balanced_draw(y, max_tokens, rng) for y in (fit_labels, judge_labels)]
        if any(min(y.sum(), (~y).sum()) < min_positive for y in (fit_labels, judge_labels)):
            continue
        train, test = fitted.rows(draws[0]), judged.rows(draws[1])
        y, truth = fit_labels[draws[0]], judge_labels[draws[1]]
        ranked = rank_features(train.codes, y)
        for k in sizes:
            chosen = ranked[:k]
            scores = _score(train.codes[:, chosen].toarray(), y, test.codes[:, chosen].toarray(), truth)
            rows.append(_row(name, k, chosen, scores, len(truth)))
        scores = _score(train.activations, y, test.activations, truth)
        rows.append(_row(name, 0, ranked[:0], scores, len(truth)))
    columns = ["concept", "probe", "k", "features", "auc", "balanced_accuracy", "n_judged"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def rank_features(codes: scipy.sparse.csr_array, labels: Bool[np.ndarray, " n"]) -> Int[np.ndarray, " d_sae"]:
    """Features by the difference of their means, with minus without the concept, over their standard deviation.

    Features that differ equally come in the order of their numbers; those that never fire come last.
    """
    n, n_with = len(labels), int(labels.sum())
    total = np.asarray(codes.sum(axis=0), dtype=np.float64).ravel()
    inside = np.asarray(codes[labels].sum(axis=0), dtype=np.float64).ravel()
    square = np.asarray(codes.multiply(codes).sum(axis=0), dtype=np.float64).ravel()
    spread = np.sqrt(np.maximum(square / n - (total / n) ** 2, 0.0))
    gap = np.abs(inside / max(1, n_with) - (total - inside) / max(1, n - n_with))
    effect = np.divide(gap, spread, out=np.full(len(gap), -1.0), where=spread > 0)
    return np.argsort(-effect, kind="stable")


def balanced_draw(
    labels: Bool[np.ndarray, " n"], max_tokens: int, rng: np.random.Generator
) -> Int[np.ndarray, " m"]:
    """Draw tokens, half with and half without the concept as far as there are, ascending."""
    half = max_tokens // 2
    parts = [np.flatnonzero(labels == value) for value in (True, False)]
    drawn = [rng.permutation(part)[:half] for part in parts]
    return np.sort(np.concatenate(drawn))


def _score(
    x: Float[np.ndarray, "n k"],
    y: Bool[np.ndarray, " n"],
    x_test: Float[np.ndarray, "m k"],
    y_test: Bool[np.ndarray, " m"],
) -> tuple[float, float]:
    """AUC and balanced accuracy of a logistic regression."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - slow to import
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score  # noqa: PLC0415

    scale = x.std(axis=0)
    scale[scale == 0] = 1.0
    model = LogisticRegression(max_iter=300, class_weight="balanced").fit(x / scale, y)
    margin = model.decision_function(x_test / scale)
    return float(roc_auc_score(y_test, margin)), float(balanced_accuracy_score(y_test, margin > 0))


def _row(
    name: str, k: int, chosen: Int[np.ndarray, " k"], scores: tuple[float, float], n: int
) -> dict[str, Any]:
    probe = RAW if k == 0 else f"{k} feature{'s' if k > 1 else ''}"
    return {
        "concept": name,
        "probe": probe,
        "k": k,
        "features": " ".join(map(str, chosen)),
        "auc": scores[0],
        "balanced_accuracy": scores[1],
        "n_judged": n,
    }
