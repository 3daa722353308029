"""Small drawings: the same data gives the same bytes, and nothing is drawn where it is not."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from helix_sae.reporting.drawings import histogram_bars, logo, png_uri, whiskers

ANY = st.floats(allow_nan=True, allow_infinity=True, width=32)


def heights(flank: int = 6) -> np.ndarray:
    made = np.random.default_rng(0).random((2 * flank + 1, 4)) / 2
    made[0] = 0
    return made


def test_a_figure_as_a_uri():
    uri = png_uri(logo(heights()))
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"), validate=True)
    assert content.startswith(b"\x89PNG\r\n")
    assert b"matplotlib" not in content.lower()
    assert png_uri(logo(heights())) == uri
    assert png_uri(logo(heights() * 1.5)) != uri


def test_a_logo_has_a_letter_for_each_height():
    made = heights()
    axes = logo(made).axes[0]
    letters = [
        p for p in axes.patches if p.get_path().vertices.shape[0] > 5 and type(p).__name__ == "PathPatch"
    ]
    assert len(letters) == (made > 1e-3).sum()
    assert axes.get_ylim()[1] >= made.sum(axis=1).max()
    assert axes.get_xlim() == (-6.5, 6.5)
    labels = [tick.get_text() for tick in axes.get_xticklabels()]
    assert labels == ["−5", "0", "+5"]


def test_letters_stand_on_each_other_smallest_below():
    made = np.zeros((3, 4))
    made[1] = [0.2, 0.0, 0.5, 0.1]
    axes = logo(made).axes[0]
    boxes = [p.get_path().get_extents() for p in axes.patches if type(p).__name__ == "PathPatch"]
    assert [round(b.height, 6) for b in boxes] == [0.1, 0.2, 0.5]
    assert [round(b.y0, 6) for b in boxes] == [0.0, 0.1, 0.3]
    assert all(-0.5 <= b.x0 < b.x1 <= 0.5 for b in boxes)


@pytest.mark.parametrize("made", [np.zeros((5, 4)), np.full((1, 4), 1e-9)])
def test_an_empty_logo_can_be_drawn(made: np.ndarray):
    assert isinstance(logo(made), Figure)
    assert png_uri(logo(made)).startswith("data:image/png")


@given(st.lists(st.floats(0, 1e6, width=32), max_size=50), st.integers(1, 40))
def test_histograms_stay_in_their_box(values: list[float], n_bins: int):
    array = np.array(values, dtype=np.float32)
    bars = histogram_bars(array, n_bins=n_bins)
    if not len(array) or array.max() == 0:
        assert bars == []
        return
    assert len(bars) == n_bins
    assert max(bar.height for bar in bars) == 26.0
    assert all(0 <= bar.height <= 26 and 0 <= bar.x < 100 and bar.x + bar.width <= 100.01 for bar in bars)
    counts = np.histogram(array, bins=n_bins, range=(0, float(array.max())))[0]
    assert [bar.height == 0 for bar in bars] == (counts == 0).tolist()


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
