"""What a sweep of dictionaries found: explained variance and stability against the number of active features."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helix_sae.figures.style import (
    CYCLE,
    INK,
    MUTED,
    SMALL,
    TEXT,
    heading,
    new_figure,
    quiet_legend,
    tidy,
)

_MARKS = {"picked": ("o", 9.0), "as it is now": ("s", 9.0)}


def sweep(
    rungs: pd.DataFrame, min_explained_variance: float, picked: str | None = None, present: str | None = None
) -> Figure:
    """Every rung as a point, a colour a grid: what it explains, and whether other seeds find the same features.

    Parameters
    ----------
    rungs : DataFrame
        A row a rung: ``rung`` (a grid's name, and a number where it has several), ``n_seeds``, ``l0``,
        ``lowest_explained_variance``, ``pw_mcc``, ``chance_cosine``.
    min_explained_variance : float
        A horizontal guide: what a rung has to explain at every site.
    picked, present : str, optional
        Rungs that are marked: the one that the rule picked, and the settings that are in use.

    Returns
    -------
    Figure
    """
    figure = new_figure(7.4, 3.9)
    left, right = figure.subplots(1, 2)
    rungs = rungs.assign(grid=rungs["rung"].astype(str).str.replace(r" \d+$", "", regex=True))
    colours = {grid: CYCLE[i % len(CYCLE)] for i, grid in enumerate(dict.fromkeys(rungs["grid"]))}
    for axes, column, label in (
        (left, "lowest_explained_variance", "Explained variance, lowest of the sites"),
        (right, "pw_mcc", "Matched cosine of the seeds, mean of the sites"),
    ):
        tidy(axes)
        for grid, part in rungs.groupby("grid", sort=False):
            named = None if grid == present else str(grid)  # which has a mark of its own
            axes.plot(part["l0"], part[column], "o", color=colours[str(grid)], markersize=4.5, label=named)
        for name, rung in zip(_MARKS, (picked, present), strict=True):
            _mark(axes, rungs[rungs["rung"] == rung], column, name)
        axes.set_title(label, loc="left", fontsize=TEXT)
        axes.set_xlabel("active features per token (L0), mean of the sites")
        axes.set_xlim(0, None)
    _guide(left, min_explained_variance, "asked for")
    _guide(right, float(rungs["chance_cosine"].mean()), "by chance")
    right.set_ylim(0, 1.02)
    handles, names = left.get_legend_handles_labels()
    for name, (marker, size) in _MARKS.items():
        handles.append(
            Line2D([], [], marker=marker, markersize=size, linestyle="", color=INK, fillstyle="none")
        )
        names.append(name)
    quiet_legend(figure, handles=handles, labels=names, loc="outside lower center", ncols=min(5, len(names)))
    n_seeds = int(rungs["n_seeds"].iloc[0])
    heading(figure, f"Sweep of {len(rungs)} settings, {n_seeds} seeds each")
    return figure


def _mark(axes: Axes, rows: pd.DataFrame, column: str, name: str) -> None:
    """A ring or a box around a point."""
    marker, size = _MARKS[name]
    axes.plot(rows["l0"], rows[column], marker, color=INK, markersize=size, fillstyle="none", linestyle="")


def _guide(axes: Axes, height: float, words: str) -> None:
    """A horizontal line with a word at its right end."""
    axes.axhline(height, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    axes.annotate(
        words,
        xy=(1, height),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 3),
        textcoords="offset points",
        ha="right",
        fontsize=SMALL,
        color=MUTED,
    )
