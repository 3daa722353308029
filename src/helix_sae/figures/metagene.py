"""Metagene: mean activation around the start and the stop codon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from helix_sae.figures.style import (
    CYCLE,
    INK,
    MUTED,
    SMALL,
    TEXT,
    heading,
    new_figure,
    plotly_layout,
    quiet_legend,
    tidy,
)

_START, _STOP = "start codon", "stop codon"


def metagene(
    profiles: Mapping[str, pd.DataFrame],
    *,
    names: Mapping[int, str] | None = None,
    title: str = "Activation around start and stop codon",
) -> Figure:
    """Mean activation of a few features by position, one panel a landmark.

    Parameters
    ----------
    profiles : mapping landmark -> DataFrame
        From :func:`helix_sae.statistics.metagene.metagene_profile`; ``feature``, ``position``, ``mean``,
        ``standard_error``, ``n_sequences``. The landmark's name is the panel's title; positions from 0 of
        ``"start codon"`` and before 3 of ``"stop codon"`` are coding, and shaded codon by codon.
    names : mapping feature -> str, optional
        What the features are called in the legend.
    title : str

    Returns
    -------
    Figure
    """
    figure = new_figure(3.6 * len(profiles) + 0.6, 3.3)
    panels = np.atleast_1d(figure.subplots(1, len(profiles), sharey=True))
    for axes, (landmark, profile) in zip(panels, profiles.items(), strict=True):
        tidy(axes)
        _codons(axes, landmark, profile)
        for index, (feature, part) in enumerate(profile.groupby("feature", sort=False)):
            colour = CYCLE[index % len(CYCLE)]
            label = (names or {}).get(int(feature), f"feature {feature}")  # pyright: ignore
            mean, error = part["mean"], part["standard_error"]
            axes.fill_between(
                part["position"], mean - error, mean + error, color=colour, alpha=0.18, linewidth=0
            )
            axes.plot(part["position"], mean, color=colour, linewidth=1.3, label=label)
        n = int(profile["n_sequences"].max())
        axes.set_title(f"{landmark} (n = {n:,})", loc="left", fontsize=TEXT)
        axes.set_xlabel(f"nucleotides from the {landmark}")
        axes.set_xlim(profile["position"].min(), profile["position"].max())
        axes.set_ylim(bottom=0)
    panels[0].set_ylabel("mean activation ± s.e.m.")
    quiet_legend(panels[-1], loc="upper left", bbox_to_anchor=(1.0, 1.0))
    heading(figure, title)
    return figure


def _codons(axes: Axes, landmark: str, profile: pd.DataFrame) -> None:
    """Shade every other codon of the coding side and mark the landmark."""
    first, last = int(profile["position"].min()), int(profile["position"].max())
    if landmark == _START:
        starts = range(0, last + 1, 6)
    elif landmark == _STOP:
        starts = range(0, first - 6, -6)
    else:
        starts = range(0)
    for start in starts:
        axes.axvspan(max(start - 0.5, first), min(start + 2.5, last), color="#F1F1F1", linewidth=0, zorder=0)
    edge = 2.5 if landmark == _STOP else -0.5  # the stop codon belongs to the coding region
    axes.axvline(edge, color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)))
    if landmark in (_START, _STOP):
        sides = ("5′UTR", "CDS") if landmark == _START else ("CDS", "3′UTR")
        for side, ha, shift in ((0, "right", -3), (1, "left", 3)):
            axes.annotate(
                sides[side],
                xy=(edge, 0.99),
                xycoords=("data", "axes fraction"),
                xytext=(shift, 0),
                textcoords="offset points",
                ha=ha,
                va="top",
                fontsize=SMALL,
                color=INK,
            )


def metagene_interactive(
    profiles: Mapping[str, pd.DataFrame], *, names: Mapping[int, str] | None = None
) -> go.Figure:
    """The same for the browser."""
    figure: Any = make_subplots(
        rows=1, cols=len(profiles), shared_yaxes=True, subplot_titles=list(profiles), horizontal_spacing=0.05
    )
    for column, (landmark, profile) in enumerate(profiles.items(), start=1):
        for index, (feature, part) in enumerate(profile.groupby("feature", sort=False)):
            label = (names or {}).get(int(feature), f"feature {feature}")  # pyright: ignore
            figure.add_trace(
                go.Scatter(
                    x=part["position"].to_list(),
                    y=part["mean"].to_list(),
                    mode="lines",
                    name=label,
                    legendgroup=label,
                    showlegend=column == 1,
                    line={"color": CYCLE[index % len(CYCLE)], "width": 2},
                ),
                row=1,
                col=column,
            )
        figure.update_xaxes(title_text=f"nucleotides from the {landmark}", row=1, col=column)
    figure.update_yaxes(title_text="mean activation", row=1, col=1, rangemode="tozero")
    figure.update_layout(**plotly_layout(title="Activation around start and stop codon"))
    return figure
