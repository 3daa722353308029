"""QQ figure: p-values against what they should be when there is nothing to find."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helix_sae.figures.style import (
    BLUE,
    MUTED,
    SMALL,
    TEXT,
    VERMILLION,
    heading,
    new_figure,
    nothing_to_draw,
    nothing_to_draw_interactive,
    plotly_layout,
    quiet_legend,
    tidy,
)

_TITLE = "Calibration under permuted labels"
_NOTHING = "No permutations were asked for (correlation.n_permutations: 0)."


def qq(quantiles: Mapping[str, pd.DataFrame], summaries: Mapping[str, pd.DataFrame]) -> Figure:
    """Observed and permuted p-values against their expectation, one panel a family of tests.

    Parameters
    ----------
    quantiles : mapping family -> DataFrame
        ``expected``, ``observed``, ``permuted``, ``permuted_low``, ``permuted_high``, all -log10 p; from
        :func:`helix_sae.statistics.multiple_testing.permutation_calibration`.
    summaries : mapping family -> DataFrame, one row
        ``inflation_factor``, ``share_with_discovery``, ``n_permutations``, ``alpha``.

    Returns
    -------
    Figure
    """
    if not quantiles:
        return nothing_to_draw(_TITLE, _NOTHING)
    figure = new_figure(3.5 * len(quantiles) + 0.3, 3.7)
    any_beyond = False
    for axes, (family, table) in zip(
        np.atleast_1d(figure.subplots(1, len(quantiles))), quantiles.items(), strict=True
    ):
        tidy(axes, grid="both")
        summary = summaries[family].iloc[0]
        reach = float(table["expected"].max()) * 1.03
        top = max(reach, float(table["permuted_high"].max()) * 1.3)
        axes.fill_between(
            table["expected"],
            table["permuted_low"],
            table["permuted_high"],
            color=BLUE,
            alpha=0.2,
            linewidth=0,
            label="permuted labels, 95 %",
        )
        axes.plot(
            table["expected"], table["permuted"], color=BLUE, linewidth=1.5, label="permuted labels, median"
        )
        shown = table["observed"].clip(upper=top)
        beyond = table["observed"] > top
        axes.plot(
            table["expected"][~beyond],
            shown[~beyond],
            ".",
            color=VERMILLION,
            markersize=4,
            label="real labels",
        )
        any_beyond |= bool(beyond.any())
        if beyond.any():  # an empty line that is not clipped would upset the layout
            axes.plot(
                table["expected"][beyond], shown[beyond], "^", color=VERMILLION, markersize=4, clip_on=False
            )
        axes.plot([0, reach], [0, reach], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), label="expected")
        axes.set_xlim(0, reach)
        axes.set_ylim(0, top)
        axes.set_xlabel("expected −log₁₀ p")
        axes.set_ylabel("−log₁₀ p")
        axes.set_title(f"{family} tests", loc="left", fontsize=TEXT)
        axes.annotate(
            f"λ = {summary['inflation_factor']:.2f}\nany discovery: {summary['share_with_discovery']:.1%}\nof"
            f" {int(summary['n_permutations'])} permutations",
            xy=(0.97, 0.04),
            xycoords="axes fraction",
            ha="right",
            va="bottom",
            fontsize=SMALL,
            color=MUTED,
        )
    handles, names = figure.axes[0].get_legend_handles_labels()
    if any_beyond:
        handles.append(Line2D([], [], marker="^", markersize=4, linestyle="", color=VERMILLION))
        names.append("beyond the page")
    quiet_legend(figure, handles=handles, labels=names, loc="outside lower left", ncols=5)
    heading(figure, _TITLE)
    return figure


def qq_interactive(quantiles: Mapping[str, pd.DataFrame]) -> go.Figure:
    """The permuted and observed curves for the browser."""
    if not quantiles:
        return nothing_to_draw_interactive(_TITLE, _NOTHING)
    figure = go.Figure()
    dashes = ["solid", "dot", "dash"]
    reach = 0.0
    for index, (family, table) in enumerate(quantiles.items()):
        reach = max(reach, float(table["expected"].max()))
        for name, colour in (("permuted", BLUE), ("observed", VERMILLION)):
            figure.add_trace(
                go.Scatter(
                    x=table["expected"].to_list(),
                    y=table[name].to_list(),
                    mode="lines",
                    name=f"{family}: {name}",
                    line={"color": colour, "dash": dashes[index % len(dashes)]},
                )
            )
    figure.add_trace(
        go.Scatter(
            x=[0, reach], y=[0, reach], mode="lines", name="expected", line={"color": MUTED, "dash": "dash"}
        )
    )
    figure.update_layout(
        **plotly_layout(
            title=_TITLE,
            xaxis_title="expected −log<sub>10</sub> p",
            yaxis_title="−log<sub>10</sub> p",
        )
    )
    return figure
