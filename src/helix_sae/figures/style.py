"""One look for all figures: colours that colour-blind readers can tell apart, quiet axes, words for names.

Nothing here touches matplotlib's global state: every figure is a ``Figure`` of its own and carries its style.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter

DPI = 200
TEXT, SMALL = 9.0, 8.0
INK, MUTED, FAINT = "#222222", "#6B6B6B", "#D9D9D9"

# the palette of Okabe and Ito, of the year 2008
BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, YELLOW, BLACK = "#56B4E9", "#CC79A7", "#F0E442", "#000000"
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)

CATEGORY_COLOURS = {
    "structural": BLUE,
    "functional": VERMILLION,
    "regulatory": GREEN,
    "other": PURPLE,
    "none": FAINT,
}

_WORDS = {
    "mrl": "MRL",
    "te": "TE",
    "mfe": "MFE",
    "gc": "GC",
    "gc3": "GC3",
    "csc": "CSC",
    "cds": "CDS",
    "5utr": "5′UTR",
    "3utr": "3′UTR",
    "uaug": "uAUG",
    "uorf": "uORF",
    "are": "ARE",
    "mirna": "miRNA",
    "kozak": "Kozak",
    "cai": "CAI",
}
_MEASURED = frozenset({"mrl", "te", "half_life", "expression_level"})
"""Measured properties that the raw format names; any other ``functional_`` column is named by the user."""


class LiteralFigure(Figure):
    """A figure that takes words for what they are: dollar signs in somebody's column name start no formula.

    With matplotlib's own rule a column named ``cost_$_per_$`` would be set as mathematics, or keep the figure
    from being drawn. Only the powers that logarithmic axes write are formulas.
    """

    def draw(self, renderer: RendererBase) -> None:
        """Draw every text literally."""
        powers = {
            id(label)
            for axes in self.axes
            for axis in (axes.xaxis, axes.yaxis)
            for formatter, ticks in (
                (axis.get_major_formatter(), axis.get_major_ticks()),
                (axis.get_minor_formatter(), axis.get_minor_ticks()),
            )
            if isinstance(formatter, LogFormatter)
            for tick in ticks
            for label in (tick.label1, tick.label2)
        }
        for text in self.findobj(Text):
            if id(text) not in powers:
                text.set_parse_math(False)
        super().draw(renderer)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that arranges its own margins."""
    return LiteralFigure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def tidy(axes: Axes, *, grid: str | None = "y") -> Axes:
    """Quiet spines, ticks and grid (``"x"``, ``"y"``, ``"both"`` or none)."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
        axes.spines[side].set_linewidth(0.8)
    axes.tick_params(colors=INK, labelsize=SMALL, width=0.8, length=3)
    axes.xaxis.label.set(color=INK, fontsize=TEXT)
    axes.yaxis.label.set(color=INK, fontsize=TEXT)
    axes.title.set(color=INK, fontsize=TEXT, fontweight="bold")
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color="#EBEBEB", linewidth=0.7)  # pyright: ignore[reportArgumentType]
    return axes


def heading(figure: Figure, title: str, subtitle: str | None = None) -> None:
    """Title of the whole figure, with what it shows in a second, quieter line."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
    if subtitle:
        figure.axes[0].annotate(
            subtitle,
            xy=(0, 1),
            xycoords="axes fraction",
            xytext=(0, 6),
            textcoords="offset points",
            fontsize=SMALL,
            color=MUTED,
            va="bottom",
        )


def quiet_legend(place: Axes | Figure, **options: Any) -> None:
    """A legend without a frame, of axes or of a whole figure (one that is wider than its axes would be cut off)."""
    place.legend(**{"frameon": False, "fontsize": SMALL, "labelcolor": INK, "handlelength": 1.4, **options})


def property_label(name: str) -> str:
    """A property's column in words: ``functional_mrl`` becomes ``MRL``; one under a user's own name keeps that name."""
    own = name.removeprefix("functional_")
    if own != name and own not in _MEASURED:
        return own
    parts = name.split("_")
    if parts[0] in ("functional", "structural", "regulatory") and len(parts) > 1:
        parts = parts[1:]
    label = " ".join(_WORDS.get(part, part) for part in parts)
    return label[0].upper() + label[1:] if label[:1].islower() and parts[0] not in _WORDS else label


def difference_words(pairs: pd.DataFrame | None) -> str:
    """How the differences of pairs are known, before "difference": ``measured``, ``true``, ``simulator-expected``, ``known``.

    What a simulator expects of a user's own sequences is nowhere called known.

    Parameters
    ----------
    pairs : DataFrame or None
        With a column ``difference_kind`` where that is known; values that are missing are passed over.
    """
    if pairs is None or "difference_kind" not in pairs:
        return "known"
    kinds = [str(kind) for kind in pairs["difference_kind"].dropna().unique()]
    return {"expected": "simulator-expected"}.get(kinds[0], kinds[0]) if len(kinds) == 1 else "known"


def short_label(name: str, room: int = 36) -> str:
    """The same for a place in a figure: a name that would leave no room for the figure is cut.

    Parameters
    ----------
    name : str
        A property's column.
    room : int
        Characters.
    """
    label = property_label(name)
    return label if len(label) <= room else label[: room - 1].rstrip() + "…"


def site_label(site: str) -> str:
    """A site in words: ``layers.2.mixer`` becomes ``layer 2 mixer``."""
    return site.replace("layers.", "layer ").replace(".", " ").replace("_", " ")


def ordered_colours(n: int) -> list[str]:
    """Colours for an ordered series (sites from first to last), dark to light, none too pale to read."""
    colours = matplotlib.colormaps["cividis"](np.linspace(0.0, 0.85, max(n, 1)))
    return [to_hex(c) for c in colours]


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move positions apart to at least ``gap``, in their order, inside [low, high] as far as there is room.

    Used for labels: each goes as near to its own point as its neighbours allow.
    """
    n = len(positions)
    if n == 0:
        return []
    gap = min(gap, (high - low) / max(n - 1, 1))
    order = np.argsort(np.asarray(positions), kind="stable")
    placed = np.clip(np.asarray(positions, dtype=float)[order], low, high)
    for i in range(1, n):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    placed[-1] = min(placed[-1], high)
    for i in range(n - 2, -1, -1):
        placed[i] = min(placed[i], placed[i + 1] - gap)
    result = np.empty(n)
    result[order] = placed
    return [float(v) for v in result]


def nothing_to_draw(title: str, reason: str) -> Figure:
    """A figure that says why it is empty: a catalog entry always has its picture."""
    figure = new_figure(5.2, 1.5)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.text(0.0, 0.5, reason, transform=axes.transAxes, va="center", fontsize=TEXT, color=MUTED)
    heading(figure, title)
    return figure


def nothing_to_draw_interactive(title: str, reason: str) -> go.Figure:
    """The same for the browser."""
    figure = go.Figure()
    figure.add_annotation(text=reason, showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5)
    figure.update_layout(**plotly_layout(title=title, height=240))
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure


def plotly_layout(**more: Any) -> dict[str, Any]:
    """Layout shared by the interactive figures."""
    return {
        "template": "simple_white",
        "font": {"family": "Arial, Helvetica, sans-serif", "size": 13, "color": INK},
        "margin": {"l": 70, "r": 30, "t": 70, "b": 60},
        **more,
    }
