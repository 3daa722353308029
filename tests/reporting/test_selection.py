"""Which features get a page: turn by turn from effects and associations, each with a reason that holds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_sae.reporting.selection import choose_features

EFFECTS = pd.DataFrame(
    {
        "site": ["a", "a", "a", "b", "b"],
        "feature": ["1", "2", "error", "3", "4"],
        "confirmed": [False, True, True, True, False],
        "discovery_oriented": [9.0, 1.0, 50.0, -0.5, 0.2],
        "validation_oriented": [8.0, 0.4, 50.0, -0.6, np.nan],
    }
)
SIGNIFICANT = pd.DataFrame(
    {
        "site": ["a", "a", "b", "b", "b"],
        "feature": [2, 5, 6, 7, 8],
        "property": ["gc", "gc", "mrl", "gc", "mrl"],
        "replicated": [True, True, True, False, None],
        "effect": [0.5, 0.4, 0.3, 0.9, 0.8],
        "validation_effect": [0.5, -0.6, 0.3, 0.1, np.nan],
    }
)


def chosen(*arguments: object) -> list[tuple[str, int]]:
    table = choose_features(*arguments)
    return list(zip(table["site"], table["feature"], strict=True))


def test_confirmed_effects_come_first_by_their_held_out_size():
    assert chosen(EFFECTS, None, 9) == [("b", 3), ("a", 2), ("a", 1), ("b", 4)]


def test_replicated_associations_come_first_one_property_after_the_other():
    assert chosen(None, SIGNIFICANT, 9) == [("a", 5), ("b", 6), ("a", 2), ("b", 7), ("b", 8)]


def test_both_by_turns_and_no_feature_twice():
    table = choose_features(EFFECTS, SIGNIFICANT, 9)
    keys = list(zip(table["site"], table["feature"], strict=True))
    assert keys == [("b", 3), ("a", 5), ("a", 2), ("b", 6), ("a", 1), ("b", 4), ("b", 7), ("b", 8)]
    both = table.set_index(["site", "feature"]).loc[("a", 2)]
    assert both["chosen_for"] == "causal effect, association"
    assert both["reason"] == (
        "rank 2 by causal effect, confirmed on held-out families; no. 2 for GC, replicated"
    )
    reasons = dict(zip(keys, table["reason"], strict=True))
    assert reasons["a", 1] == "rank 3 by causal effect, not confirmed on held-out families"
    assert reasons["b", 8] == "no. 1 for MRL, not replicated"


def test_error_nodes_are_no_features():
    assert "error" not in choose_features(EFFECTS, None, 9)["feature"].astype(str).tolist()


@pytest.mark.parametrize("nothing", [None, EFFECTS.head(0)])
@pytest.mark.parametrize("none", [None, SIGNIFICANT.head(0)])
def test_nothing_to_choose_from(nothing: pd.DataFrame | None, none: pd.DataFrame | None):
    table = choose_features(nothing, none, 5)
    assert list(table.columns) == ["site", "feature", "chosen_for", "reason"]
    assert len(table) == 0
    assert table["feature"].dtype == "int64"


@given(st.integers(1, 12))
def test_as_many_as_asked_for(n: int):
    assert chosen(EFFECTS, SIGNIFICANT, n) == chosen(EFFECTS, SIGNIFICANT, 12)[:n]


def test_the_kinds_of_stored_columns_do_not_matter():
    """Tables that went through CSV hold numbers as text, and truths with gaps as objects."""
    stored = SIGNIFICANT.assign(feature=SIGNIFICANT["feature"].astype(str))
    assert chosen(EFFECTS, stored, 9) == chosen(EFFECTS, SIGNIFICANT, 9)
    truths = EFFECTS.assign(confirmed=EFFECTS["confirmed"].map({True: "True", False: "False"}))
    assert chosen(truths, None, 9) == chosen(EFFECTS, None, 9)
