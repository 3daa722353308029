"""Small drawings: the same data gives the same bytes, and nothing is drawn where it is not."""

from __future__ import annotations

import base64
import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from helix_sae.reporting.drawings import glyphs, histogram_bars, png_uri, whiskers

ANY = st.floats(allow_nan=True, allow_infinity=True, width=32)


def drawn(height: float) -> Figure:
    figure = Figure()
    figure.subplots().plot([0, height])
    return figure


def test_a_figure_as_a_uri():
    uri = png_uri(drawn(1))
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"), validate=True)
    assert content.startswith(b"\x89PNG\r\n")
    assert b"matplotlib" not in content.lower()
    assert png_uri(drawn(1)) == uri
    assert png_uri(drawn(2)) != uri


def test_letters_of_logos_fill_the_unit_square():
    paths = glyphs()
    assert list(paths) == list("ACGU")
    for path in paths.values():
        assert re.fullmatch(r"[MLQCZ\d\-. ]+", path)
        assert path.startswith("M")
        numbers = np.array(re.findall(r"-?\d\.\d+", path), dtype=float).reshape(-1, 2)
        assert numbers.min() >= -0.01
        assert numbers.max() <= 1.01
        assert np.allclose(numbers.max(axis=0), 1, atol=0.05)


@given(st.lists(st.floats(0, 1e6, width=32), max_size=50), st.integers(1, 40))
def test_histograms_stay_in_their_box(values: list[float], n_bins: int):
    array = np.array(values, dtype=np.float32)
    bars = histogram_bars(array, n_bins=n_bins)
    if not len(array) or array.max() == 0:
        assert bars == []
        return
    assert len(bars) == n_bins
    assert max(bars) == 26.0
    assert min(bars) >= 0
    counts = np.histogram(array, bins=n_bins, range=(0, float(array.max())))[0]
    assert [bar == 0 for bar in bars] == (counts == 0).tolist()


@given(st.lists(st.tuples(ANY, ANY, ANY), max_size=8))
def test_whiskers_share_an_axis_that_holds_zero(rows: list[tuple[float, float, float]]):
    estimates, lows, highs = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    drawn = whiskers(estimates, lows, highs)
    assert [w is None for w in drawn] == [not np.isfinite(e) for e in estimates]
    shown = [w for w in drawn if w is not None]
    assert len({w.zero for w in shown}) <= 1
    for w in shown:
        assert all(2 <= place <= 98 for place in w)
    finite = [(e, w.estimate) for e, w in zip(estimates, drawn, strict=True) if w is not None]
    for (a, at), (b, bt) in zip(sorted(finite)[:-1], sorted(finite)[1:], strict=True):
        assert (a <= b) == (at <= bt) or at == bt


def test_a_whisker_on_the_side_of_its_effect():
    positive, negative, unknown = whiskers([1.0, -2.0, np.nan], [0.5, -3.0, 0.0], [1.5, np.nan, 1.0])
    assert positive is not None
    assert negative is not None
    assert positive.zero < positive.low < positive.estimate < positive.high == 98
    assert 2 == negative.low < negative.estimate == negative.high < negative.zero  # no upper end known
    assert unknown is None
    assert whiskers([0.0], [0.0], [0.0]) == [(2.0, 2.0, 2.0, 2.0)]
