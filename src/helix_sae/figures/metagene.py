"""Metagene: mean activation around the start and the stop codon, a row of panels a feature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    nothing_to_draw,
    nothing_to_draw_interactive,
    plotly_layout,
    tidy,
)

_START, _STOP = "start codon", "stop codon"
_TITLE = "Activation around start and stop codon"
_NOTHING = "No sequence has a known start or stop codon within reach."

Profiles = Mapping[str, pd.DataFrame]
Names = Mapping[int, str]
Shares = Mapping[tuple[str, str, int], float]
"""Share of the variance with a period of three nucleotides, by landmark, side and feature."""


def from_tables(
    profiles: pd.DataFrame, periods: pd.DataFrame | None = None
) -> tuple[dict[str, pd.DataFrame], dict[int, str], dict[tuple[str, str, int], float]]:
    """Bring long tables of several sites into what :func:`metagene` takes: features are numbered by their ``name``.

    Parameters
    ----------
    profiles : DataFrame
        ``landmark, name, position, mean, standard_error, n_sequences``.
    periods : DataFrame, optional
        ``landmark, side, name, share``.

    Returns
    -------
    profiles, names, shares
    """
    numbers = {str(name): i for i, name in enumerate(profiles["name"].unique())}
    numbered = profiles.assign(feature=profiles["name"].astype(str).map(numbers))
    by_landmark = {str(name): part for name, part in numbered.groupby("landmark", sort=True)}
    rows = [] if periods is None else periods[["landmark", "side", "name", "share"]].to_dict("records")
    shares = {
        (str(row["landmark"]), str(row["side"]), numbers[str(row["name"])]): float(row["share"])
        for row in rows
        if str(row["name"]) in numbers
    }
    return by_landmark, {i: name for name, i in numbers.items()}, shares


def metagene(
    profiles: Profiles,
    names: Names | None = None,
    shares: Shares | None = None,
    *,
    title: str = _TITLE,
) -> Figure:
    """Mean activation of a few features by position: a row a feature, a column a landmark.

    Parameters
    ----------
    profiles : mapping landmark -> DataFrame
        From :func:`helix_sae.statistics.metagene.metagene_profile`; ``feature``, ``position``, ``mean``,
        ``standard_error``, ``n_sequences``. The landmark's name is the column's title; positions from 0 of
        ``"start codon"`` and before 3 of ``"stop codon"`` are coding, and shaded codon by codon.
    names : mapping feature -> str, optional
        What the features are called.
    shares : mapping (landmark, side, feature) -> float, optional
        Share of the variance with the period of a codon, written on its side (``upstream``, ``downstream``).
    title : str

    Returns
    -------
    Figure
    """
    features = _features(profiles)
    if not features:
        return nothing_to_draw(title, _NOTHING)
    profiles = _covered(profiles)
    figure = new_figure(3.7 * len(profiles) + 0.3, 1.25 * len(features) + 1.3)
    tops = {feature: _top(profiles, feature) for feature in features}
    grid = figure.subplots(len(features), len(profiles), sharex="col", sharey="row", squeeze=False)
    for column, (landmark, profile) in enumerate(profiles.items()):
        for row, feature in enumerate(features):
            axes = tidy(grid[row, column])
            part = profile[profile["feature"] == feature]
            colour = CYCLE[row % len(CYCLE)]
            _codons(axes, landmark, profile, labelled=row == 0)
            mean, error = part["mean"], part["standard_error"]
            axes.fill_between(part["position"], 0, mean, color=colour, alpha=0.14, linewidth=0)
            axes.fill_between(
                part["position"], mean - error, mean + error, color=colour, alpha=0.3, linewidth=0
            )
            axes.plot(part["position"], mean, color=colour, linewidth=1.1)
            axes.set_xlim(profile["position"].min(), profile["position"].max())
            axes.set_ylim(0, tops[feature])
            axes.locator_params(axis="y", nbins=4)
            _periods(axes, landmark, int(feature), shares or {})
            if column == 0:
                # in the first row above the names of the regions
                axes.set_title(
                    _called(names, feature),
                    loc="left",
                    fontsize=SMALL,
                    color=colour,
                    fontweight="bold",
                    pad=15 if row == 0 else 4,
                )
        n = int(profile["n_sequences"].max())
        grid[-1, column].set_xlabel(f"nucleotides from the {landmark} (n = {n:,})", fontsize=TEXT)
    figure.supylabel("mean activation ± s.e.m.", fontsize=TEXT, color=INK)
    heading(figure, title)
    return figure


def _covered(profiles: Profiles) -> dict[str, pd.DataFrame]:
    """Up to where there are sequences: a reporter may end a few codons behind its start."""
    covered: dict[str, pd.DataFrame] = {}
    for landmark, profile in profiles.items():
        seen = profile.loc[profile["n_sequences"] > 0, "position"]
        covered[landmark] = (
            profile[profile["position"].between(seen.min(), seen.max())] if len(seen) else profile
        )
    return covered


def _features(profiles: Profiles) -> list[int]:
    return list(dict.fromkeys(int(f) for profile in profiles.values() for f in profile["feature"].unique()))


def _top(profiles: Profiles, feature: int) -> float:
    """Upper end of a row's axis: room for the numbers above the highest mean of all landmarks."""
    means = [profile.loc[profile["feature"] == feature, "mean"].max() for profile in profiles.values()]
    highest = max((float(mean) for mean in means if mean == mean), default=0.0)
    return 1.25 * highest if highest > 0 else 1.0


def _called(names: Names | None, feature: int) -> str:
    return (names or {}).get(int(feature), f"feature {feature}")


def _codons(axes: Axes, landmark: str, profile: pd.DataFrame, *, labelled: bool) -> None:
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
    if labelled and landmark in (_START, _STOP):
        sides = ("5′UTR", "CDS") if landmark == _START else ("CDS", "3′UTR")
        for side, ha, shift in ((0, "right", -3), (1, "left", 3)):
            axes.annotate(
                sides[side],
                xy=(edge, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(shift, 2),
                textcoords="offset points",
                ha=ha,
                va="bottom",
                fontsize=SMALL,
                color=INK,
            )


def _periods(axes: Axes, landmark: str, feature: int, shares: Shares) -> None:
    """The share of variance with the period of a codon, on either side."""
    for side, x, ha in (("upstream", 0.01, "left"), ("downstream", 0.99, "right")):
        share = shares.get((landmark, side, feature))
        if share is not None and share == share:
            axes.annotate(
                f"3-nt {share:.0%}",
                xy=(x, 0.97),
                xycoords="axes fraction",
                ha=ha,
                va="top",
                fontsize=7,
                color=INK,
                bbox={
                    "boxstyle": "square,pad=0.15",
                    "facecolor": "white",
                    "edgecolor": "none",
                    "alpha": 0.75,
                },
            )


def metagene_interactive(
    profiles: Profiles, names: Names | None = None, shares: Shares | None = None
) -> go.Figure:
    """The same for the browser."""
    features = _features(profiles)
    if not features:
        return nothing_to_draw_interactive(_TITLE, _NOTHING)
    profiles = _covered(profiles)
    titles = [
        _called(names, feature) if column == 0 else ""
        for feature in features
        for column in range(len(profiles))
    ]
    figure: Any = make_subplots(
        rows=len(features),
        cols=len(profiles),
        shared_xaxes="columns",
        shared_yaxes="rows",
        subplot_titles=titles,
        horizontal_spacing=0.04,
        vertical_spacing=min(0.08, 0.3 / len(features)),
    )
    for column, (landmark, profile) in enumerate(profiles.items(), start=1):
        for row, feature in enumerate(features, start=1):
            part = profile[profile["feature"] == feature]
            sides = [
                f"3-nt period {side}: {share:.0%}"
                for side in ("upstream", "downstream")
                if (share := (shares or {}).get((landmark, side, feature))) is not None and share == share
            ]
            figure.add_trace(
                go.Scatter(
                    x=part["position"].to_list(),
                    y=part["mean"].to_list(),
                    mode="lines",
                    name=_called(names, feature),
                    showlegend=False,
                    fill="tozeroy",
                    line={"color": CYCLE[(row - 1) % len(CYCLE)], "width": 1.5},
                    customdata=part["n_sequences"].to_list(),
                    hovertemplate="%{x} nt: %{y:.3g} (%{customdata:,} sequences)"
                    + "".join(f"<br>{side}" for side in sides)
                    + "<extra>%{fullData.name}</extra>",
                ),
                row=row,
                col=column,
            )
            edge = 2.5 if landmark == _STOP else -0.5
            figure.add_vline(x=edge, line={"color": MUTED, "width": 1, "dash": "dash"}, row=row, col=column)
        figure.update_xaxes(title_text=f"nucleotides from the {landmark}", row=len(features), col=column)
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(**plotly_layout(title=_TITLE, height=170 * len(features) + 130))
    return figure
