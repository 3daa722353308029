"""Volcano: every tested association by effect and p-value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helix_sae.figures.style import (
    CATEGORY_COLOURS,
    INK,
    MUTED,
    PURPLE,
    SMALL,
    heading,
    new_figure,
    plotly_layout,
    property_label,
    quiet_legend,
    short_label,
    spread,
    tidy,
)
from helix_sae.names import feature_name

SMALLEST_P = 1e-300  # smaller ones underflow; they are drawn at this height as triangles
_MAX_INTERACTIVE = 5000
_ROOM = 1.75  # half width of the page over that of the cloud: names stand beside it


def volcano(associations: pd.DataFrame, *, alpha: float = 0.05, n_labels: int = 10) -> Figure:
    """Effect against -log10 p of all tested associations, coloured by category where significant.

    Parameters
    ----------
    associations : DataFrame
        ``site``, ``feature``, ``property``, ``category``, ``effect``, ``cluster_p_value``, ``q_value``.
    alpha : float
        Level of the false discovery rate; the dashed line is the largest p-value that passes it.
    n_labels : int
        So many properties are named, each at its strongest association.

    Returns
    -------
    Figure
    """
    points = _points(associations, alpha)
    figure = new_figure(7.2, 4.8)
    axes = tidy(figure.add_subplot(), grid="both")
    quiet = points[~points["passes"]]
    axes.scatter(
        quiet["effect"], quiet["height"], s=5, color="#C4C4C4", linewidths=0, alpha=0.5, rasterized=True
    )
    passing = points[points["passes"]].sample(frac=1, random_state=0)  # so that no category hides the others
    colours = passing["category"].map(CATEGORY_COLOURS).fillna(CATEGORY_COLOURS["other"])
    for capped, marker, size in ((False, "o", 11), (True, "^", 20)):
        part = passing["capped"] == capped
        axes.scatter(
            passing.loc[part, "effect"],
            passing.loc[part, "height"],
            s=size,
            marker=marker,
            c=colours[part],
            linewidths=0,
            alpha=0.65,
            rasterized=True,
        )
    handles = [
        Line2D(
            [], [], marker="o", linestyle="", color=CATEGORY_COLOURS.get(str(c), PURPLE), label=f"{c} ({n:,})"
        )
        for c, n in passing["category"].value_counts(sort=False).sort_index().items()
    ]
    handles.append(
        Line2D([], [], marker="o", linestyle="", color="#C4C4C4", label=f"not significant ({len(quiet):,})")
    )
    reach = max(0.25, float(points["effect"].abs().max()) * 1.08) if len(points) else 1.0
    top = float(points["height"].max()) * 1.08 + 0.5 if len(points) else 1.0
    room = _ROOM if points["passes"].any() else 1.05
    axes.set_xlim(-reach * room, reach * room)
    axes.set_xticks([t for t in axes.get_xticks() if abs(t) <= min(1.0, reach * 1.1) + 1e-9])
    axes.set_xlim(-reach * room, reach * room)
    axes.set_ylim(0, top)
    if points["passes"].any():
        bar = float(points.loc[points["passes"], "height"].min())
        axes.axhline(bar, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            f"q = {alpha:g}",
            xy=(1, bar),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 2),
            textcoords="offset points",
            ha="right",
            fontsize=SMALL,
            color=MUTED,
        )
    _name_strongest(axes, points, n_labels, reach, top)
    axes.set_xlabel("effect (Spearman ρ; rank-biserial r; ε² for several classes)")
    axes.set_ylabel("−log₁₀ p")
    quiet_legend(axes, handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4)
    heading(
        figure,
        "Associations of features with properties",
        f"{len(points):,} tests on discovery clusters, {int(points['passes'].sum()):,} at q ≤ {alpha:g}"
        + ("; triangles: p below 10⁻³⁰⁰" if passing["capped"].any() else ""),
    )
    return figure


def _points(associations: pd.DataFrame, alpha: float) -> pd.DataFrame:
    points = associations[associations["cluster_p_value"].notna()].copy()
    points["capped"] = points["cluster_p_value"] < SMALLEST_P
    points["height"] = -np.log10(points["cluster_p_value"].clip(lower=SMALLEST_P))
    points["passes"] = points["q_value"] <= alpha
    return points


def _name_strongest(axes: Any, points: pd.DataFrame, n_labels: int, reach: float, top: float) -> None:
    """Names in two columns beside the cloud, each joined to its point."""
    strongest = (
        points[points["passes"]]
        .assign(size=lambda t: t["effect"].abs())
        .sort_values(["height", "size"], ascending=False, kind="stable")
        .drop_duplicates("property")
        .head(n_labels)
    )
    for side in (-1, 1):
        here = strongest[np.where(strongest["effect"] >= 0, 1, -1) == side]
        here = here.sort_values(["height", "size"], kind="stable")  # of equal heights the outermost on top
        heights = spread(list(here["height"]), 0.055 * top, 0.03 * top, 0.97 * top)
        for row, height in zip(here.itertuples(), heights, strict=True):
            axes.annotate(
                short_label(str(row.property)),
                xy=(row.effect, row.height),
                xytext=(side * reach * (_ROOM - 0.03), height),
                ha="right" if side > 0 else "left",
                va="center",
                fontsize=SMALL,
                color=INK,
                arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 2},
            )


def volcano_interactive(associations: pd.DataFrame, *, alpha: float = 0.05) -> go.Figure:
    """The same for the browser; of the associations that do not pass, an even sample is drawn."""
    points = _points(associations, alpha).sort_values("height", kind="stable")
    quiet = points[~points["passes"]]
    quiet = quiet.iloc[:: max(1, len(quiet) // _MAX_INTERACTIVE)]
    figure = go.Figure()
    groups = [("not significant", "#C4C4C4", quiet)]
    groups += [
        (name, colour, points[points["passes"] & (points["category"] == name)].tail(_MAX_INTERACTIVE))
        for name, colour in CATEGORY_COLOURS.items()
    ]
    for name, colour, part in groups:
        if not len(part):
            continue
        text = [
            f"{property_label(str(r.property))}<br>{feature_name(str(r.site), r.feature)}"
            f"<br>effect {r.effect:.3f}, q {r.q_value:.2g}"
            for r in part.itertuples()
        ]
        figure.add_trace(
            go.Scattergl(
                x=part["effect"].to_list(),
                y=part["height"].to_list(),
                mode="markers",
                name=name,
                text=text,
                hovertemplate="%{text}<extra></extra>",
                marker={"color": colour, "size": 5, "opacity": 0.7},
            )
        )
    figure.update_layout(
        **plotly_layout(
            title="Associations of features with properties",
            xaxis_title="effect (Spearman ρ; rank-biserial r; ε²)",
            yaxis_title="−log<sub>10</sub> p",
        )
    )
    return figure
