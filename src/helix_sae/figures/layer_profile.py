"""Layer profile: what kind of biology the features of each site stand for."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helix_sae.figures.style import (
    CATEGORY_COLOURS,
    INK,
    PURPLE,
    SMALL,
    TEXT,
    heading,
    new_figure,
    plotly_layout,
    quiet_legend,
    site_label,
    tidy,
)

_NAMES = {"none": "no replicated association"}


def layer_profile(hierarchy: pd.DataFrame) -> Figure:
    """Share of alive features by category and site: by best match (bars) and with any association (lines).

    Parameters
    ----------
    hierarchy : DataFrame
        From :func:`helix_sae.statistics.hierarchy.feature_hierarchy`: ``site``, ``category``, ``n_alive``,
        ``n_best``, ``share_best``, ``share_any``.

    Returns
    -------
    Figure
    """
    sites = list(dict.fromkeys(hierarchy["site"]))
    categories = list(dict.fromkeys(hierarchy["category"]))
    figure = new_figure(7.4, 3.5)
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    _bars(tidy(left), hierarchy, sites, categories)
    _lines(tidy(right), hierarchy, sites, [c for c in categories if c != "none"])
    heading(figure, "Biology by depth of the model")
    return figure


def _bars(axes: Axes, hierarchy: pd.DataFrame, sites: list[str], categories: list[str]) -> None:
    bottom = np.zeros(len(sites))
    for category in categories:
        part = hierarchy[hierarchy["category"] == category].set_index("site").loc[sites]
        share = part["share_best"].to_numpy(dtype=np.float64)
        colour = CATEGORY_COLOURS.get(category, PURPLE)
        axes.bar(sites, share, bottom=bottom, width=0.68, color=colour, label=_NAMES.get(category, category))
        for x, (height, base, count) in enumerate(zip(share, bottom, part["n_best"], strict=True)):
            if height >= 0.05:
                ink = INK if category == "none" else "white"
                axes.text(
                    x, base + height / 2, f"{count:,}", ha="center", va="center", fontsize=SMALL, color=ink
                )
        bottom += np.nan_to_num(share)
    n_alive = hierarchy.drop_duplicates("site").set_index("site").loc[sites, "n_alive"]
    axes.set_xticks(range(len(sites)), [_tick(s, int(n)) for s, n in zip(sites, n_alive, strict=True)])
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of alive features")
    axes.set_title("Best match", loc="left", fontsize=TEXT)
    quiet_legend(axes, loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=2)


def _tick(site: str, n_alive: int) -> str:
    return (
        site_label(site).replace(" ", "\n", 1).replace("layer\n", "layer ").replace(" mixer", "\nmixer")
        + f"\nn = {n_alive:,}"
    )


def _lines(axes: Axes, hierarchy: pd.DataFrame, sites: list[str], categories: list[str]) -> None:
    x = np.arange(len(sites))
    for category in categories:
        part = hierarchy[hierarchy["category"] == category].set_index("site").loc[sites]
        share = part["share_any"].to_numpy(dtype=np.float64)
        colour = CATEGORY_COLOURS.get(category, PURPLE)
        error = 1.96 * np.sqrt(share * (1 - share) / part["n_alive"].to_numpy(dtype=np.float64))
        axes.fill_between(
            x,
            np.maximum(share - error, 0),
            np.minimum(share + error, 1),
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
        axes.plot(x, share, color=colour, marker="o", markersize=4.5, linewidth=1.6, label=category)
    axes.set_xticks(x, [_tick(s, 0).rsplit("\n", 1)[0] for s in sites])
    axes.set_xlim(-0.3, len(sites) - 0.7)
    axes.set_ylim(0, None)
    axes.set_ylabel("share of alive features")
    axes.set_title("Any association (band: 95 % interval)", loc="left", fontsize=TEXT)
    quiet_legend(axes, loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=3)


def layer_profile_interactive(hierarchy: pd.DataFrame) -> go.Figure:
    """The bars for the browser."""
    sites = list(dict.fromkeys(hierarchy["site"]))
    figure = go.Figure()
    for category in dict.fromkeys(hierarchy["category"]):
        part = hierarchy[hierarchy["category"] == category].set_index("site").loc[sites]
        top = part["top_property"].fillna("none").astype(str)
        figure.add_trace(
            go.Bar(
                x=[site_label(s) for s in sites],
                y=part["share_best"].to_list(),
                name=_NAMES.get(str(category), str(category)),
                marker_color=CATEGORY_COLOURS.get(str(category), PURPLE),
                customdata=np.column_stack([part["n_best"], part["n_alive"], top]).tolist(),
                hovertemplate="%{x}<br>%{customdata[0]} of %{customdata[1]} features"
                "<br>most often: %{customdata[2]}<extra>%{fullData.name}</extra>",
            )
        )
    figure.update_layout(
        **plotly_layout(
            title="Biology by depth of the model: best match of each alive feature",
            barmode="stack",
            yaxis={"title": "share of alive features", "range": [0, 1], "tickformat": ".0%"},
        )
    )
    return figure
