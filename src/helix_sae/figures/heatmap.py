"""Clustered heat map: the top features against all properties."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.cluster import hierarchy

from helix_sae.figures.style import (
    CATEGORY_COLOURS,
    INK,
    MUTED,
    PURPLE,
    SMALL,
    new_figure,
    plotly_layout,
    property_label,
    quiet_legend,
    short_label,
)
from helix_sae.names import feature_name

PALETTE = "RdBu_r"


class _Grid(NamedTuple):
    """Effects of features (rows) on properties (columns), both in the order of the clustering."""

    effects: npt.NDArray[np.float64]
    passes: npt.NDArray[np.bool_]
    rows: list[str]
    columns: list[str]
    categories: list[str]
    row_tree: npt.NDArray[np.float64] | None
    column_tree: npt.NDArray[np.float64] | None


def association_heatmap(
    associations: pd.DataFrame, best_matches: pd.DataFrame, *, n_features: int = 40, alpha: float = 0.05
) -> Figure:
    """Effects of the strongest features on every property; both sides clustered.

    Parameters
    ----------
    associations : DataFrame
        ``site``, ``feature``, ``property``, ``category``, ``kind``, ``effect``, ``q_value``.
    best_matches : DataFrame
        Chooses the features: replicated ones first, then by the size of the effect, in turn over the
        properties.
    n_features : int
    alpha : float
        Cells with q above it are dotted.

    Returns
    -------
    Figure
    """
    grid = _grid(associations, best_matches, n_features, alpha)
    n_rows, n_columns = grid.effects.shape
    width = 3.4 + 0.27 * n_columns
    height = 2.6 + 0.17 * n_rows
    figure = new_figure(width, height)
    layout = figure.add_gridspec(
        2,
        3,
        width_ratios=[0.7, 0.27 * n_columns, 0.14],
        height_ratios=[0.45, 0.17 * n_rows],
        wspace=0.01,
        hspace=0.01,
    )
    axes = figure.add_subplot(layout[1, 1])
    image = axes.imshow(
        np.ma.masked_invalid(grid.effects),
        cmap=PALETTE,
        vmin=-1,
        vmax=1,
        aspect="auto",
        interpolation="nearest",
    )
    axes.set_facecolor("#EFEFEF")
    y, x = np.nonzero(~grid.passes & ~np.isnan(grid.effects))
    axes.scatter(x, y, s=2.0, color=MUTED, linewidths=0)
    axes.set_xticks(range(n_columns), [short_label(c) for c in grid.columns], rotation=55, ha="right")
    axes.set_xticks(np.arange(n_columns + 1) - 0.5, minor=True)
    axes.set_yticks(range(n_rows), grid.rows)
    axes.set_yticks(np.arange(n_rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.6)
    axes.yaxis.tick_right()
    axes.tick_params(which="both", length=0, labelsize=7, colors=INK, pad=3)
    for label, category in zip(axes.get_xticklabels(), grid.categories, strict=True):
        label.set(color=CATEGORY_COLOURS.get(category, INK), fontsize=SMALL, rotation_mode="anchor")
    for spine in axes.spines.values():
        spine.set_visible(False)
    _tree(figure.add_subplot(layout[1, 0]), grid.row_tree, n_rows, "left")
    _tree(figure.add_subplot(layout[0, 1]), grid.column_tree, n_columns, "top")
    size = figure.get_figwidth()
    bar_axes = figure.add_axes((1 - 1.15 / size, 1 - 0.42 / height, 0.95 / size, 0.1 / height))
    bar = figure.colorbar(image, cax=bar_axes, orientation="horizontal", ticks=[-1, 0, 1])
    bar.ax.set_title("effect", fontsize=SMALL, color=INK, pad=3)
    bar.ax.tick_params(labelsize=7, colors=INK, length=2)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    figure.suptitle(
        "Features and what they go along with", x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK
    )
    _key(figure, grid, alpha)
    return figure


def _key(figure: Figure, grid: _Grid, alpha: float) -> None:
    """What colours of names, dots and grey stand for."""
    handles: list[Any] = [
        Patch(color=CATEGORY_COLOURS.get(c, PURPLE), label=c) for c in sorted(set(grid.categories))
    ]
    if (~grid.passes & ~np.isnan(grid.effects)).any():
        dot = Line2D([], [], marker="o", markersize=2, linestyle="", color=MUTED, label=f"q > {alpha:g}")
        handles.append(dot)
    if np.isnan(grid.effects).any():
        handles.append(Patch(color="#EFEFEF", label="not tested"))
    quiet_legend(
        figure,
        handles=handles,
        loc="outside lower left",
        ncols=len(handles),
        handlelength=1.0,
        columnspacing=1.2,
    )


def _tree(axes: Axes, tree: npt.NDArray[np.float64] | None, n: int, side: str) -> None:
    axes.set_axis_off()
    if tree is None:
        return
    drawn = hierarchy.dendrogram(tree, no_plot=True)
    for along, distance in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        at = np.asarray(along) / 10 - 0.5
        if side == "left":
            axes.plot(-np.asarray(distance), at, color=MUTED, linewidth=0.7)
        else:
            axes.plot(at, distance, color=MUTED, linewidth=0.7)
    if side == "left":
        axes.set_ylim(n - 0.5, -0.5)
        axes.margins(x=0)
    else:
        axes.set_xlim(-0.5, n - 0.5)
        axes.margins(y=0)


def _grid(associations: pd.DataFrame, best_matches: pd.DataFrame, n_features: int, alpha: float) -> _Grid:
    chosen = best_matches.assign(size=best_matches["effect"].abs())
    chosen = chosen.sort_values(
        ["replicated", "rank_within_property", "size"], ascending=[False, True, False], kind="stable"
    )
    keys = list(chosen[["site", "feature"]].head(n_features).itertuples(index=False, name=None))
    if not keys:  # nothing is significant: show the largest effects, all of them dotted
        strongest = associations.assign(size=associations["effect"].abs()).sort_values(
            "size", ascending=False, kind="stable"
        )
        keys = list(
            strongest.drop_duplicates(["site", "feature"])[["site", "feature"]]
            .head(n_features)
            .itertuples(index=False, name=None)
        )
    wanted = associations.set_index(["site", "feature"]).loc[keys].reset_index()
    properties = list(dict.fromkeys(associations["property"]))
    place = pd.MultiIndex.from_tuples(keys).get_indexer(pd.MultiIndex.from_frame(wanted[["site", "feature"]]))
    column = pd.Index(properties).get_indexer(pd.Index(wanted["property"]))
    matrix, q = np.full((2, len(keys), len(properties)), np.nan)
    matrix[place, column] = wanted["effect"]
    q[place, column] = wanted["q_value"]
    row_tree, row_order = _cluster(matrix)
    column_tree, column_order = _cluster(matrix.T)
    category = associations.drop_duplicates("property").set_index("property")["category"]
    return _Grid(
        matrix[np.ix_(row_order, column_order)],
        (q <= alpha)[np.ix_(row_order, column_order)],
        [feature_name(str(keys[i][0]), keys[i][1]) for i in row_order],
        [properties[i] for i in column_order],
        [str(category[properties[i]]) for i in column_order],
        row_tree,
        column_tree,
    )


def _cluster(matrix: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64] | None, list[int]]:
    """Average linkage on Euclidean distance; missing effects count as zero."""
    if len(matrix) < 3:
        return None, list(range(len(matrix)))
    tree = hierarchy.linkage(np.nan_to_num(matrix), method="average", optimal_ordering=True)
    return tree, [int(i) for i in hierarchy.leaves_list(tree)]


def association_heatmap_interactive(
    associations: pd.DataFrame, best_matches: pd.DataFrame, *, n_features: int = 80, alpha: float = 0.05
) -> go.Figure:
    """The same for the browser, with the numbers under the pointer."""
    grid = _grid(associations, best_matches, n_features, alpha)
    marks = np.where(grid.passes, "", f"q > {alpha:g}")
    figure = go.Figure(
        go.Heatmap(
            z=np.round(grid.effects, 4).tolist(),
            x=[property_label(c) for c in grid.columns],
            y=grid.rows,
            text=marks.tolist(),
            zmin=-1,
            zmax=1,
            colorscale="RdBu_r",
            colorbar={"title": "effect"},
            hovertemplate="%{y}<br>%{x}<br>effect %{z:.3f} %{text}<extra></extra>",
            xgap=1,
            ygap=1,
        )
    )
    figure.update_layout(
        **plotly_layout(
            title="Features and what they go along with",
            height=max(420, 130 + 16 * len(grid.rows)),
            yaxis={"autorange": "reversed", "automargin": True},
            xaxis={"automargin": True, "tickangle": -50},
        )
    )
    return figure
