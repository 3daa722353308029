"""Sections as numbers for machines: whatever the analyses put in, JSON comes out, and nothing changes its meaning."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from helix_sae.reporting.document import (
    Section,
    Statement,
    Tile,
    is_empty,
    not_run,
    picture,
    plain,
    run_summary,
    truth,
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**62), 2**62),
    st.floats(),
    st.text(max_size=5),
    st.booleans().map(np.bool_),
    st.integers(-99, 99).map(np.int32),
    st.floats(width=32).map(np.float32),
    st.just(pd.NA),
    st.just(pd.NaT),
    st.just(pd.Timestamp("2024-01-02")),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(max_size=4), st.integers()), inner, max_size=4),
        st.lists(st.floats(), max_size=4).map(np.array),
        st.lists(st.floats(), max_size=4).map(lambda v: pd.Series(v, dtype=float)),
        st.lists(st.integers(0, 9), max_size=4).map(lambda v: pd.DataFrame({"a": v, "b": "x"})),
    ),
    max_leaves=12,
)


@given(VALUES)
def test_everything_becomes_json(value: object):
    made = plain(value)
    assert json.loads(json.dumps(made, allow_nan=False)) == made


@given(
    st.one_of(
        st.booleans(),
        st.integers(-(2**53), 2**53),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
    )
)
def test_plain_values_stay(value: object):
    assert plain(value) == value
    assert type(plain(value)) is type(value)


def test_tables_arrays_and_what_is_missing():
    table = pd.DataFrame({"feature": [1, 2], "q": [0.5, np.nan], "ok": [True, False], "name": ["a", None]})
    assert plain(table) == [
        {"feature": 1, "q": 0.5, "ok": True, "name": "a"},
        {"feature": 2, "q": None, "ok": False, "name": None},
    ]
    assert plain(pd.Series([1, None], dtype="Int64")) == [1, None]
    assert plain(np.array([[1.0, math.inf]])) == [[1.0, None]]
    assert plain(np.array(2.5)) == 2.5
    assert plain({1: (True, np.bool_(False))}) == {"1": [True, False]}
    assert plain([pd.NA, pd.NaT]) == [None, None]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([True, False, None], [True, False, False]),
        (["True", "False", "no"], [True, False, False]),
        (np.array([True, False]), [True, False]),
        ([1.0, 0.0], [True, False]),
        (pd.array([True, None], dtype="boolean"), [True, False]),
    ],
)
def test_truth_of_a_column_however_it_was_stored(values: object, expected: list[bool]):
    found = truth(pd.Series(values))
    assert found.dtype == bool
    assert found.tolist() == expected


def test_emptiness():
    assert is_empty(None)
    assert is_empty(pd.DataFrame({"a": []}))
    assert not is_empty(pd.DataFrame({"a": [1]}))


def test_a_part_that_was_not_run_says_so():
    section = not_run("circuit", "The circuit", "No circuit was searched for.")
    assert [s.tone for s in section.statements] == ["absent"]
    summary = run_summary([section])
    assert summary["circuit"] == {"run": False, "reason": "No circuit was searched for."}
    assert summary["headlines"] == []


def test_the_summary_holds_headlines_warnings_and_numbers():
    sections = [
        Section(
            "first",
            "First",
            [
                Statement("Found.", headline=True),
                Statement("Said by the way."),
                Statement("Weak.", "weak", True),
            ],
            numbers={"r2": np.float32(0.5), "lost": float("nan")},
            tiles=[Tile("R²", "0.5")],
            warnings=["Beware."],
        ),
        not_run("second", "Second", "Was not run."),
    ]
    summary = run_summary(sections)
    assert summary == {
        "headlines": ["Found.", "Weak."],
        "warnings": ["Beware."],
        "first": {"run": True, "r2": 0.5, "lost": None},
        "second": {"run": False, "reason": "Was not run."},
    }
    json.dumps(summary, allow_nan=False)


def test_a_picture_knows_what_is_written_in_it():
    figure = Figure()
    axes = figure.add_subplot()
    axes.set_yticks([0, 1], ["L0.mixer.3 ✓", "L2.mixer.4"])
    axes.annotate("L4.mixer.5", (0, 0))
    words = picture("f", "title", "caption", figure).words
    assert {"L0.mixer.3", "L2.mixer.4", "L4.mixer.5"} <= set(words)
    assert len(words) == len(set(words))
