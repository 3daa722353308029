"""What small drawings of the pages are made from: letters of logos, histograms, whiskers; and PNG figures as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

LETTER_COLOURS = {"A": "#15803d", "C": "#1d4ed8", "G": "#a16207", "U": "#b91c1c"}
"""Of the nucleotides, here and in the windows."""

_FONT = FontProperties(family="DejaVu Sans", weight="bold")


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


@cache
def glyphs(letters: str = "ACGU") -> dict[str, str]:
    """Outlines of letters as SVG paths that fill the unit square, y downwards: what sequence logos are set in."""
    drawn: dict[str, str] = {}
    for letter in letters:
        path = TextPath((0, 0), letter, size=100, prop=_FONT)
        box = path.get_extents()
        fit = Affine2D().translate(-box.x0, -box.y0).scale(1 / box.width, -1 / box.height).translate(0.0, 1.0)
        parts: list[str] = []
        for points, code in fit.transform_path(path).iter_segments(simplify=False):
            parts.append(_SVG[int(code)] + " ".join(f"{value:.3f}" for value in np.ravel(points)))
        drawn[letter] = "".join(part if part[0] != "Z" else "Z" for part in parts)
    return drawn


_SVG = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}
"""Codes of matplotlib's paths."""


def histogram_bars(values: Float[np.ndarray, " n"], n_bins: int = 36, height: float = 26.0) -> list[float]:
    """Heights of the bars of the values' distribution between 0 and their maximum; empty when there are none.

    Heights go with the logarithm of the counts: strong activations are rare, and are what a reader looks for.
    """
    if not len(values) or float(values.max()) <= 0:
        return []
    counts, _ = np.histogram(values, bins=n_bins, range=(0.0, float(values.max())))
    tall = np.log1p(counts)
    return [round(float(h), 1) for h in height * tall / tall.max()]


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
