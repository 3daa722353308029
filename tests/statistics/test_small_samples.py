"""The exact rank-sum test beside scipy's, and its bounds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from helix_sae.errors import AnalysisError
from helix_sae.statistics.small_samples import exact_rank_sum


@pytest.mark.parametrize(("n_one", "n_other"), [(1, 4), (4, 4), (5, 9)])
def test_without_ties_it_is_scipys(n_one: int, n_other: int) -> None:
    rng = np.random.default_rng(n_other)
    values = rng.standard_normal((n_one + n_other, 6))
    is_one = rng.permutation(np.arange(n_one + n_other) < n_one)
    _, p_value = exact_rank_sum(values, is_one)
    for column in range(6):
        twin = stats.mannwhitneyu(values[is_one, column], values[~is_one, column], method="exact")
        assert p_value[column] == pytest.approx(twin.pvalue)


def test_what_never_differs_is_no_finding() -> None:
    effect, p_value = exact_rank_sum(np.zeros((8, 1)), np.arange(8) < 3)
    assert (effect[0], p_value[0]) == (0.0, 1.0)


def test_too_many_divisions_are_refused() -> None:
    with pytest.raises(AnalysisError, match="too many"):
        exact_rank_sum(np.zeros((40, 1)), np.arange(40) < 20)
