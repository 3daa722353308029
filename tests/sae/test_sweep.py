"""Sweeps: every combination is tried as it would be alone, and the rule picks what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sae_toys import superposition

from helix_sae.errors import AnalysisError, ConfigurationError
from helix_sae.sae import ArrayBatches, train_saes
from helix_sae.sae.stability import matched_cosines
from helix_sae.sae.sweep import pick_rung, rungs_of, train_sweep

ARRAYS = {"layers.0": superposition(1500), "layers.1": superposition(1500, seed=1)}
HOLDOUT = list(ArrayBatches({site: superposition(500, seed=2) for site in ARRAYS}, 250))


def orders(seed: int) -> ArrayBatches:
    return ArrayBatches(ARRAYS, 150, seed=seed, epochs=3)


def table(*rungs: tuple[str, list[float], float, float]) -> pd.DataFrame:
    """``rung, explained variance by site, l0, pw_mcc``."""
    rows = [
        {
            "rung": name, "site": f"layers.{i}", "architecture": "relu", "d_sae": 72, "sparsity": "k 4",
            "learning_rate": 1e-3, "n_steps": 100, "n_seeds": 3, "explained_variance": value, "l0": l0,
            "n_features": 70.0, "pw_mcc": pw_mcc, "pw_mcc_lowest": pw_mcc, "chance_cosine": 0.2,
            "start_cosine": 0.5, "settings": "{}",
        }
        for name, explained, l0, pw_mcc in rungs
        for i, value in enumerate(explained)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({"architecture": "topk", "k": []}, "The grid mine has an empty list"),
        ({"architecture": "topk", "k": [4, -1]}, "The grid mine: .*k: Input should be greater"),
        ({"architecture": "topk", "l1_coefficient": 1e-3}, "The grid mine: .*l1_coefficient: Extra inputs"),
        ({"architecture": "topk", "n_steps": [0, 10]}, "The grid mine asks for 0 steps"),
    ],
)
def test_a_grid_that_gives_no_settings_is_named(grid: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        rungs_of({"mine": grid}, 100)


def test_lists_of_an_architecture_are_no_values_to_try() -> None:
    grid = {"architecture": ["matryoshka"], "prefix_shares": [0.5, 1.0], "k": 4}
    (rung,) = rungs_of({"nested": grid}, 100)
    assert (rung.name, rung.config.prefix_shares) == ("nested", (0.5, 1.0))


def test_every_rung_is_what_it_is_alone() -> None:
    grids = {
        "relu": {"architecture": "relu", "l1_coefficient": [1e-3, 4e-3], "n_steps": [10, 30]},
        "topk": {"architecture": "topk", "k": 3},
    }
    rungs = rungs_of(grids, 20)
    swept = train_sweep(orders, rungs, HOLDOUT, n_seeds=2, seed=5).set_index(["rung", "site"])
    assert list(dict.fromkeys(swept.index.get_level_values(0))) == [
        "relu 1",
        "relu 2",
        "relu 3",
        "relu 4",
        "topk",
    ]
    for rung in (rungs[2], rungs[4]):
        alone = train_saes(
            orders, {"x": rung.config}, n_seeds=2, n_steps=rung.n_steps, seed=5, holdout=HOLDOUT
        )
        metrics = alone.metrics.groupby("site").mean(numeric_only=True)
        for site, saes in alone.seeds().items():
            row = swept.loc[(rung.name, site)]
            assert row["explained_variance"] == pytest.approx(
                metrics.loc[site, "explained_variance"], abs=1e-4
            )
            assert row["l0"] == pytest.approx(metrics.loc[site, "l0"], abs=0.01)
            living = [
                sae.W_dec.detach().numpy()[alone.evaluations[key].features["alive"].to_numpy()]
                for sae, key in zip(saes, [k for k in alone.saes if k.site == site], strict=True)
            ]
            assert row["pw_mcc"] == pytest.approx(matched_cosines(*living).mean(), abs=1e-3)
            assert row["n_features"] == pytest.approx(np.mean([len(rows) for rows in living]))
    assert swept.loc[("relu 1", "layers.0"), "sparsity"] == "l1_coefficient 0.001"


def test_the_pick_is_sparse_first_and_then_stable() -> None:
    tried = table(
        ("dense", [0.99, 0.99], 9.0, 0.99),
        ("sparsest", [0.97, 0.96], 5.0, 0.80),
        ("as sparse", [0.96, 0.95], 5.4, 0.90),
        ("poor at one site", [0.99, 0.94], 2.0, 0.99),
        ("a seed without features", [0.96, 0.96], 1.0, np.nan),
    )
    assert pick_rung(tried, 0.95, 0.1).row["rung"] == "as sparse"
    assert pick_rung(tried, 0.95, 0.05).row["rung"] == "sparsest"
    assert pick_rung(tried, 0.955, 0.1).row["rung"] == "sparsest"
    assert pick_rung(tried, 0.98, 0.1).row["rung"] == "dense"
    assert "4 of 5 rungs explain at least 0.95" in pick_rung(tried, 0.95, 0.1).reason


def test_a_sweep_without_a_winner_shows_its_best_rung() -> None:
    tried = table(("low", [0.5, 0.6], 3.0, 0.9), ("better", [0.9, 0.8], 4.0, 0.7))
    with pytest.raises(
        AnalysisError, match=r"None of the 2 rungs .* The best is better .*0\.800 at layers\.1, with 4\.00"
    ):
        pick_rung(tried, 0.95, 0.1)
    nothing_living = table(("a", [0.96, 0.97], 3.0, np.nan))
    with pytest.raises(AnalysisError, match="1 of 1 rungs explain enough, but of none"):
        pick_rung(nothing_living, 0.95, 0.1)
    with pytest.raises(AnalysisError, match="explains anything of a site whose activations are all the same"):
        pick_rung(table(("a", [0.9, np.nan], 3.0, 0.9)), 0.95, 0.1)


@given(
    st.lists(
        st.tuples(st.floats(0.8, 1), st.floats(0.8, 1), st.floats(0.5, 20), st.floats(0, 1)),
        min_size=1,
        max_size=8,
    ),
    st.floats(0, 1),
)
def test_no_rung_that_explains_enough_is_sparser_or_as_sparse_and_more_stable(
    rungs: list[tuple[float, float, float, float]], as_sparse: float
) -> None:
    tried = table(*((f"r {i}", [a, b], l0, pw) for i, (a, b, l0, pw) in enumerate(rungs)))
    enough = [(l0, pw) for a, b, l0, pw in rungs if min(a, b) >= 0.9]
    if not enough:
        with pytest.raises(AnalysisError):
            pick_rung(tried, 0.9, as_sparse)
        return
    row = pick_rung(tried, 0.9, as_sparse).row
    assert row["lowest_explained_variance"] >= 0.9
    limit = (1 + as_sparse) * min(l0 for l0, _ in enough)
    assert row["l0"] <= limit
    assert row["pw_mcc"] == max(pw for l0, pw in enough if l0 <= limit)
