"""A circuit as a graph: blocks from bottom to top, nodes by importance, edges by what runs through them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import withStroke

from helix_sae.figures.style import (
    BLUE,
    INK,
    MUTED,
    SMALL,
    VERMILLION,
    heading,
    new_figure,
    quiet_legend,
    site_label,
)

_WIDEST = 10


def circuit_graph(
    circuit: pd.DataFrame,
    edges: pd.DataFrame,
    *,
    sites: list[str],
    n_edges: int = 40,
    note: str | None = None,
) -> Figure:
    """The nodes that survived, the strongest edges between them, and their effects.

    Parameters
    ----------
    circuit : DataFrame
        ``site, feature, attribution``. Of each site the ten most important are drawn; the others are counted.
    edges : DataFrame
        ``upstream_site, upstream_feature, site, feature, estimate, exact``; exact values are drawn where
        there are any.
    sites : list of str
        In forward order.
    n_edges : int
        Strongest edges drawn.
    note : str, optional
        A line under the title, e.g. tau and the divergence.

    Returns
    -------
    Figure
    """
    figure = new_figure(7.6, 1.4 + 1.05 * max(len(sites), 2))
    axes = figure.add_subplot()
    axes.set_axis_off()
    drawn, places = _layout(circuit, sites)
    largest = max(float(circuit["attribution"].abs().max()) if len(circuit) else 0.0, 1e-12)
    radius = {
        (str(row.site), str(row.feature)): float(np.sqrt(_area(row, largest))) / 2
        for row in drawn.itertuples(index=False)
    }
    _edges(axes, edges, places, radius, n_edges)
    for row in drawn.itertuples(index=False):
        _node(axes, places[row.site, row.feature], row, largest)
    for level, site in enumerate(sites):
        hidden = int((circuit["site"] == site).sum()) - int((drawn["site"] == site).sum())
        words = site_label(site) + (f"\n+ {hidden} more" if hidden else "")
        axes.text(-0.11, level, words, ha="right", va="center", fontsize=SMALL, color=INK)
    axes.text(
        0.5,
        len(sites) - 0.28,
        "prediction",
        ha="center",
        va="center",
        fontsize=SMALL,
        color=INK,
        fontweight="bold",
    )
    axes.set_xlim(-0.32, 1.06)
    axes.set_ylim(-0.6, len(sites) - 0.05)
    for colour, words in ((BLUE, "towards the target"), (VERMILLION, "away from it")):
        axes.plot([], [], "o", color=colour, label=words)
    axes.plot([], [], "s", color=MUTED, label="reconstruction error")
    quiet_legend(axes, loc="lower center", bbox_to_anchor=(0.5, -0.1), ncols=3)
    heading(figure, "Circuit", note)
    return figure


def _layout(
    circuit: pd.DataFrame, sites: list[str]
) -> tuple[pd.DataFrame, dict[tuple[str, str], tuple[float, float]]]:
    parts: list[pd.DataFrame] = []
    places: dict[tuple[str, str], tuple[float, float]] = {}
    for level, site in enumerate(sites):
        here = circuit[circuit["site"] == site]
        here = here.reindex(here["attribution"].abs().sort_values(ascending=False, kind="stable").index).head(
            _WIDEST
        )
        parts.append(here)
        for x, row in zip(_spaced(len(here)), here.itertuples(index=False), strict=True):
            places[site, str(row.feature)] = (x, float(level))
    return pd.concat(parts) if parts else circuit, places


def _spaced(n: int) -> list[float]:
    """Places from left to right: the same distance in every row, centred."""
    step = 1.0 / (_WIDEST - 1)
    return [0.5 + (i - (n - 1) / 2) * step for i in range(n)]


def _node(axes: Axes, place: tuple[float, float], row: Any, largest: float) -> None:
    error = row.feature == "error"
    size = _area(row, largest)
    colour = MUTED if error else BLUE if row.attribution >= 0 else VERMILLION
    axes.scatter(*place, s=size, marker="s" if error else "o", color=colour, linewidths=0, zorder=4)
    axes.annotate(
        str(row.feature),
        place,
        xytext=(0, -4 - float(np.sqrt(size)) / 2),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=SMALL - 1,
        color=INK,
        zorder=5,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],  # edges end beside it
    )


def _area(row: Any, largest: float) -> float:
    """Of a node's mark, in square points."""
    return 60 + 380 * abs(row.attribution) / largest


def _edges(
    axes: Axes,
    edges: pd.DataFrame,
    places: dict[tuple[str, str], tuple[float, float]],
    radius: dict[tuple[str, str], float],
    n_edges: int,
) -> None:
    weight = edges["exact"].fillna(edges["estimate"])
    order = weight.abs().sort_values(ascending=False, kind="stable").index
    largest = float(weight.abs().max()) if len(weight) else 0.0
    n_drawn = 0
    for i in order:
        row = edges.loc[i]
        ends = [(row["upstream_site"], str(row["upstream_feature"])), (row["site"], str(row["feature"]))]
        if n_drawn == n_edges or largest <= 0:
            break
        if not all(end in places for end in ends):
            continue
        strength = abs(float(weight[i])) / largest
        axes.add_patch(
            FancyArrowPatch(
                places[ends[0]],
                places[ends[1]],
                arrowstyle="-|>",
                mutation_scale=7,
                shrinkA=radius[ends[0]] + 2,
                shrinkB=radius[ends[1]] + 4,
                linewidth=0.4 + 2.6 * strength,
                color=BLUE if float(weight[i]) >= 0 else VERMILLION,
                alpha=0.2 + 0.6 * strength,
                linestyle="-" if np.isfinite(row["exact"]) else (0, (3, 2)),
                zorder=2,
            )
        )
        n_drawn += 1
