"""The whole road from pooled codes to associations that replicate."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from helix_sae.errors import AnalysisError, ConfigurationError, DataError
from helix_sae.statistics.associate import associate, calibrate
from helix_sae.statistics.splits import split_by_cluster

N, F = 800, 30
DEAD, GC, CAUSE, SWITCH, CLASSES = 0, 1, 2, 3, 4
PARTS = {"discovery": 0.6, "validation": 0.4}


@pytest.fixture(scope="module")
def study():
    """Noise features, and planted ones: a GC reader, a cause of MRL, a switch and a reader of classes."""
    rng = np.random.default_rng(0)
    gc = rng.normal(size=N)
    features = np.where(rng.random((N, F)) < 0.3, rng.gamma(2, size=(N, F)), 0)
    classes = rng.integers(0, 3, N)
    features[:, DEAD] = 0
    features[:2, DEAD] = 1
    features[:, GC] = np.maximum(0, gc + 0.5 * rng.normal(size=N))
    features[:, CLASSES] = classes * (rng.random(N) < 0.9)
    table = pd.DataFrame(
        {
            "cluster": [f"c{i // 2}" for i in range(N)],
            "source": rng.choice(["lab_a", "lab_b", "lab_c"], N),
            "structural_gc_content": gc,
            "structural_length": rng.integers(50, 400, N).astype(float),
            "functional_mrl": features[:, CAUSE] + rng.normal(size=N),
            "functional_decoy": gc + rng.normal(size=N),
            "regulatory_switch": (features[:, SWITCH] + rng.normal(size=N) > 1).astype(float),
            "regulatory_class": np.array(["p", "q", "r"])[classes],
            "structural_constant": 1.0,
            "functional_empty": np.nan,
        }
    )
    table.loc[rng.random(N) < 0.2, "functional_mrl"] = np.nan
    split = split_by_cluster(table["cluster"], PARTS, 0)
    codes = {
        "layers.0.mixer": sparse.csr_array(features.astype(np.float32)),
        "layers.2.mixer": sparse.csr_array(features[rng.permutation(N)].astype(np.float32)),
    }
    return codes, table, split


@pytest.fixture(scope="module")
def tables(study):
    return associate(*study)


def test_planted_causes_are_found_and_replicate(tables):
    found = tables.significant.set_index(["site", "feature", "property"])
    for feature, name in [
        (GC, "structural_gc_content"),
        (CAUSE, "functional_mrl"),
        (SWITCH, "regulatory_switch"),
    ]:
        row = found.loc[("layers.0.mixer", feature, name)]
        assert row["effect"] > 0.3
        assert row["replicated"]
        assert row["partial_replicated"]
        assert row["validation_low"] < row["validation_effect"] < row["validation_high"]
        assert row["interval_method"] == "cluster_bootstrap"
    classes = found.loc[("layers.0.mixer", CLASSES, "regulatory_class")]
    assert classes["estimator"] == "kruskal_wallis"
    assert classes["replicated"]


def test_nothing_else_is_found(tables):
    others = tables.significant[~tables.significant["feature"].isin([GC, CAUSE, SWITCH, CLASSES])]
    assert len(others) <= 2
    assert (tables.significant["site"] == "layers.2.mixer").sum() <= 1


def test_the_decoy_goes_with_gc_alone(tables):
    row = tables.significant.set_index(["feature", "property"]).loc[(GC, "functional_decoy")]
    assert abs(row["partial_effect"]) < 0.2 * abs(row["effect"])
    assert not row["partial_significant"]


def test_numbers_are_scipys_on_the_discovery_clusters(study, tables):
    codes, table, split = study
    rows = ((split == "discovery") & table["functional_mrl"].notna()).to_numpy()
    expected = stats.spearmanr(
        codes["layers.0.mixer"].toarray()[rows, CAUSE], table.loc[rows, "functional_mrl"]
    )
    row = tables.associations.set_index(["site", "feature", "property"]).loc[
        ("layers.0.mixer", CAUSE, "functional_mrl")
    ]
    assert row["n"] == rows.sum()
    assert row["effect"] == pytest.approx(expected.statistic, rel=1e-10)
    assert row["p_value"] == pytest.approx(expected.pvalue, rel=1e-9)
    assert row["cluster_p_value"] >= row["p_value"]


def test_dead_features_leave_before_the_family_is_counted(tables):
    assert DEAD not in set(
        tables.associations.loc[tables.associations["site"] == "layers.0.mixer", "feature"]
    )
    assert tables.summary["n_alive"].tolist() == [F - 1, F - 1]
    assert (tables.summary["n_tests"] == (F - 1) * 6).all()


def test_what_cannot_be_tested_is_named(tables):
    named = set(zip(tables.warnings["property"], tables.warnings["warning"], strict=True))
    assert named == {("structural_constant", "constant"), ("functional_empty", "all_missing")}


def test_gc_is_not_conditioned_on_itself(tables):
    rows = tables.associations[tables.associations["property"] == "structural_gc_content"]
    assert rows["partial_p_value"].notna().all()


def test_best_matches_name_each_feature_once(tables):
    best = tables.best_matches
    assert not best.duplicated(["site", "feature"]).any()
    first = best[best["rank_within_property"] == 1].set_index("property")
    assert first.loc["functional_mrl", "feature"] == CAUSE
    assert first.loc["structural_gc_content", "feature"] == GC


def test_replication_is_summed_up(tables):
    overall = tables.validation.iloc[0]
    assert overall["n_significant"] == len(tables.significant)
    assert overall["n_replicated"] == tables.significant["replicated"].sum()
    assert overall["rate_low"] <= overall["replication_rate"] <= overall["rate_high"]


def test_sources_are_combined(tables):
    row = tables.by_source.set_index(["feature", "property"]).loc[(CAUSE, "functional_mrl")]
    assert row["n_sources"] == 3
    assert row["combined_low"] < row["combined_effect"] < row["combined_high"]
    within = [row[f"effect[lab_{x}]"] for x in "abc"]
    assert min(within) < row["combined_effect"] < max(within)


def test_the_closed_form_interval_stands_in_beyond_the_limit(study):
    tables = associate(*study, max_bootstrapped=1)
    methods = tables.significant["interval_method"]
    assert methods.iloc[0] == "cluster_bootstrap"
    assert (methods.iloc[1:] == "closed_form").all()
    both = associate(*study).significant
    signed = (both["kind"] != "categorical").to_numpy()
    width = (both["validation_high"] - both["validation_low"])[signed].to_numpy()
    closed = (tables.significant["validation_high"] - tables.significant["validation_low"])[signed].to_numpy()
    assert (closed[1:] > 0.8 * width[1:]).all(), "it counts clusters, and so is not the narrower one"


def test_validation_never_touches_what_discovery_found(study):
    codes, table, split = study
    other = table.copy()
    held_out = (split == "validation").to_numpy()
    other.loc[held_out, "functional_mrl"] = -other.loc[held_out, "functional_mrl"]
    turned = associate(codes, other, split)
    first = associate(codes, table, split)
    pd.testing.assert_frame_equal(turned.associations, first.associations)
    row = turned.significant.set_index(["feature", "property"]).loc[(CAUSE, "functional_mrl")]
    assert row["validation_effect"] < 0
    assert not row["replicated"]
    assert row["validation_p_value"] > 0.99


def test_same_seed_same_tables(study, tables):
    again = associate(*study)
    for first, second in zip(tables, again, strict=True):
        pd.testing.assert_frame_equal(first, second)


def test_nothing_to_find_gives_empty_tables_with_all_columns(study, tables):
    codes, table, split = study
    rng = np.random.default_rng(9)
    empty = associate(
        {"site": codes["layers.0.mixer"][:, 10:14]}, table.assign(functional_x=rng.random(N)), split,
        properties=["functional_x"], alpha=1e-9,
    )  # fmt: skip
    assert len(empty.significant) == 0
    assert list(empty.significant.columns) == list(tables.significant.columns)
    assert list(empty.best_matches.columns) == list(tables.best_matches.columns)
    assert empty.validation.iloc[0]["n_significant"] == 0


def test_benjamini_yekutieli_finds_less(study, tables):
    strict = associate(*study, correction="by")
    assert len(strict.significant) <= len(tables.significant)
    assert (strict.associations["q_value"] >= tables.associations["q_value"]).all()


def test_confounders_that_are_not_there_are_named(study):
    codes, table, split = study
    found = associate(codes, table, split, confounders=["source", "structural_nonsense", "functional_empty"])
    named = set(zip(found.warnings["property"], found.warnings["warning"], strict=True))
    assert ("structural_nonsense", "no_such_confounder") in named
    assert ("functional_empty", "empty_confounder") in named


def test_bad_input_is_told_apart(study):
    codes, table, split = study
    with pytest.raises(DataError, match="800 rows"):
        associate({"site": codes["layers.0.mixer"][:10]}, table, split)
    with pytest.raises(DataError, match="no codes"):
        associate({}, table, split)
    with pytest.raises(DataError, match="'cluster'"):
        associate(codes, table.drop(columns="cluster"), split)
    with pytest.raises(DataError, match="split has 10"):
        associate(codes, table, split[:10])
    with pytest.raises(AnalysisError, match="'validation'"):
        associate(codes, table, ["discovery"] * N)
    with pytest.raises(
        AnalysisError, match=r"No property can be tested: [\w ]+ \(\d+, such as \w+: [^\n]*\)\. Give more"
    ):
        associate(codes, table, split, properties=["structural_constant"])
    with pytest.raises(ConfigurationError, match="alpha"):
        associate(codes, table, split, alpha=0)


def test_permuted_labels_give_no_discoveries(study):
    codes, table, split = study
    found = calibrate(codes, table, split, n_permutations=60, seed=3)
    assert set(found) == {"raw", "partial"}
    for calibration in found.values():
        summary = calibration.summary.iloc[0]
        assert summary["share_with_discovery"] <= 0.08 + 2 * summary["standard_error"]
        assert summary["inflation_factor"] == pytest.approx(1, abs=0.12)
