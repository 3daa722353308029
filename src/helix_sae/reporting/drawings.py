"""Small drawings for the pages: sequence logos, histograms and whiskers, and PNG figures as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import PathPatch
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

LETTER_COLOURS = {"A": "#15803d", "C": "#1d4ed8", "G": "#a16207", "U": "#b91c1c"}
"""Of the nucleotides, here and in the windows."""

_INK, _FAINT = "#1f2328", "#9aa4ae"
_FONT = FontProperties(family="DejaVu Sans", weight="bold")


class Bar(NamedTuple):
    """One bar of a histogram, in the units of its drawing."""

    x: float
    width: float
    height: float


class Whisker(NamedTuple):
    """An estimate with its interval, as positions from 0 (left) to 100 (right) of a drawing."""

    low: float
    estimate: float
    high: float
    zero: float


def png_uri(figure: Figure, dpi: int = 150) -> str:
    """A figure as a ``data:`` URI; no metadata, so that the same figure gives the same bytes."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def logo(
    heights: Float[np.ndarray, "positions 4"], letters: str = "ACGU", width: float = 6.2, height: float = 1.5
) -> Figure:
    """A sequence logo around an activation.

    Parameters
    ----------
    heights : float (positions, 4)
        Bits of each letter (:func:`helix_sae.reporting.windows.information`); the middle row is the
        activation's own nucleotide.
    letters : str
        Names of the columns.
    width, height : float
        In inches.
    """
    flank = len(heights) // 2
    figure = Figure(figsize=(width, height), layout="constrained")
    axes: Any = figure.subplots()
    axes.axvspan(-0.5, 0.5, color="#fef3c7", lw=0)
    axes.axvspan(0.5, flank + 0.5, color="#f1f3f5", lw=0)
    for place, row in zip(range(-flank, flank + 1), heights, strict=True):
        bottom = 0.0
        for index in np.argsort(row, kind="stable"):
            if row[index] > 1e-3:
                _letter(axes, letters[index], place, bottom, float(row[index]))
                bottom += float(row[index])
    top = max(0.25, 1.08 * float(heights.sum(axis=1).max(initial=0.0)))
    axes.set(xlim=(-flank - 0.5, flank + 0.5), ylim=(0, top))
    ticks = range(-flank + flank % 5, flank + 1, 5)
    axes.set_xticks(list(ticks), [f"{t:+d}".replace("-", "−") if t else "0" for t in ticks])
    axes.set_yticks([0, round(top / 2, 1) or top / 2])
    axes.set_ylabel("bits", fontsize=7, color=_INK)
    axes.tick_params(labelsize=7, length=2, color=_FAINT, labelcolor=_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_FAINT)
    return figure


def _letter(axes: Any, letter: str, x: float, y: float, height: float) -> None:
    """One letter stretched to its height, one place wide."""
    path = TextPath((0, 0), letter, size=1, prop=_FONT)
    box = path.get_extents()
    stretch = (
        Affine2D()
        .translate(-box.x0, -box.y0)
        .scale(0.86 / box.width, height / box.height)
        .translate(x - 0.43, y)
    )
    patch = PathPatch(stretch.transform_path(path), facecolor=LETTER_COLOURS.get(letter, _INK), lw=0)
    axes.add_patch(patch)


def histogram_bars(
    values: Float[np.ndarray, " n"], n_bins: int = 36, width: float = 100.0, height: float = 26.0
) -> list[Bar]:
    """Bars of the values' distribution between 0 and their maximum, for an inline drawing; empty when there are none.

    Heights go with the logarithm of the counts: strong activations are rare, and are what a reader looks for.
    """
    if not len(values) or float(values.max()) <= 0:
        return []
    counts, _ = np.histogram(values, bins=n_bins, range=(0.0, float(values.max())))
    tall = np.log1p(counts)
    step = width / n_bins
    return [
        Bar(round(i * step, 2), round(0.86 * step, 2), round(float(h), 2))
        for i, h in enumerate(height * tall / tall.max())
    ]


def whiskers(
    estimates: Sequence[float], lows: Sequence[float], highs: Sequence[float]
) -> list[Whisker | None]:
    """Place estimates with intervals on one common axis that holds zero; None where there is no estimate."""
    numbers = np.array([*estimates, *lows, *highs, 0.0], dtype=np.float64)
    known = numbers[np.isfinite(numbers)]
    least, most = float(known.min()), float(known.max())
    span = (most - least) or 1.0

    def place(value: float) -> float:
        return round(2 + 96 * (value - least) / span, 2)

    drawn: list[Whisker | None] = []
    for estimate, low, high in zip(estimates, lows, highs, strict=True):
        if not np.isfinite(estimate):
            drawn.append(None)
            continue
        ends = (low if np.isfinite(low) else estimate, high if np.isfinite(high) else estimate)
        drawn.append(Whisker(place(ends[0]), place(estimate), place(ends[1]), place(0.0)))
    return drawn
