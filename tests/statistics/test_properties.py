"""Columns become testable properties, or a named warning."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helix_sae.errors import ConfigurationError, DataError
from helix_sae.statistics.properties import category_of, prepare_properties, property_columns


@pytest.fixture
def table():
    n = 40
    return pd.DataFrame(
        {
            "sequence_id": [f"s{i}" for i in range(n)],
            "functional_mrl": np.linspace(0, 8, n),
            "functional_none": np.full(n, np.nan),
            "structural_constant": np.ones(n),
            "structural_integer": pd.array([*range(n - 1), None], dtype="Int64"),
            "regulatory_flag": pd.array([True, False] * (n // 2), dtype="boolean"),
            "regulatory_zero_one": [0.0, 1.0] * (n // 2),
            "regulatory_class": pd.Categorical(["a", "b", "c", "c"] * (n // 4)),
            "regulatory_rare": ["x"] * 20 + ["y"] * 18 + ["z"] * 2,
            "functional_few": [1.0, 2.0, 3.0] + [np.nan] * (n - 3),
        }
    )


def test_kinds_follow_from_the_columns(table):
    properties, _ = prepare_properties(table)
    kinds = {p.name: (p.kind, p.category, p.estimator) for p in properties}
    assert kinds == {
        "functional_mrl": ("continuous", "functional", "spearman"),
        "structural_integer": ("continuous", "structural", "spearman"),
        "regulatory_flag": ("binary", "regulatory", "mann_whitney"),
        "regulatory_zero_one": ("binary", "regulatory", "mann_whitney"),
        "regulatory_class": ("categorical", "regulatory", "kruskal_wallis"),
        "regulatory_rare": ("binary", "regulatory", "mann_whitney"),
    }


def test_what_cannot_be_tested_is_named(table):
    _, warnings = prepare_properties(table)
    named = set(zip(warnings["property"], warnings["warning"], strict=True))
    assert named == {
        ("functional_none", "all_missing"),
        ("structural_constant", "constant"),
        ("functional_few", "too_few_labels"),
        ("regulatory_rare", "class_too_small"),
    }


def test_missing_labels_stay_missing(table):
    by_name = {p.name: p for p in prepare_properties(table)[0]}
    assert np.isnan(by_name["structural_integer"].values[-1])
    assert np.isnan(by_name["regulatory_rare"].values[-2:]).all()
    assert by_name["regulatory_class"].classes == ("a", "b", "c")


def test_rows_decide_what_is_testable(table):
    rows = np.arange(40) < 20
    _, warnings = prepare_properties(table, ["regulatory_rare"], rows=rows)
    assert warnings["warning"].tolist() == ["constant"]


def test_kinds_can_be_overruled(table):
    (made,), _ = prepare_properties(table, ["regulatory_zero_one"], {"regulatory_zero_one": "continuous"})
    assert made.kind == "continuous"
    with pytest.raises(ConfigurationError, match="does not hold numbers"):
        prepare_properties(table, ["regulatory_class"], {"regulatory_class": "continuous"})
    with pytest.raises(ConfigurationError, match="none of"):
        prepare_properties(table, ["functional_mrl"], {"functional_mrl": "ordinal"})
    with pytest.raises(ConfigurationError, match="3 classes"):
        prepare_properties(table, ["regulatory_class"], {"regulatory_class": "binary"})


def test_absent_and_infinite_columns_are_errors(table):
    with pytest.raises(DataError, match="functional_tpyo"):
        prepare_properties(table, ["functional_tpyo"])
    table.loc[3, "functional_mrl"] = np.inf
    with pytest.raises(DataError, match="infinite in row 3"):
        prepare_properties(table)


def test_names_and_categories(table):
    assert "sequence_id" not in property_columns(table)
    assert category_of("structural_gc_content") == "structural"
    assert category_of("something_else") == "other"
