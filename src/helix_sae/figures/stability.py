"""How many of the features of each site come back in other seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helix_sae.figures.style import (
    BLUE,
    FAINT,
    INK,
    MUTED,
    SKY,
    SMALL,
    TEXT,
    heading,
    new_figure,
    nothing_to_draw,
    quiet_legend,
    site_label,
    tidy,
)

_TITLE = "Features that come back in other seeds"
_LIMIT = 0.7


def feature_stability(stability: pd.DataFrame) -> Figure:
    """Living features by site: certified, found in some other seeds, in none; and how alike they are to their partners.

    Parameters
    ----------
    stability : DataFrame
        A row a feature: ``site``, ``alive``, ``n_others``, ``stability``, ``best_cosine``, ``correlation``,
        ``certified``.

    Returns
    -------
    Figure
    """
    living = stability[stability["alive"].astype(bool)]
    known = living[living["n_others"] > 0]
    if known.empty:
        return nothing_to_draw(_TITLE, "Stability is unknown: one seed was trained.")
    n_seeds = int(known["n_others"].iloc[0]) + 1
    figure = new_figure(7.4, 3.5)
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    _bars(tidy(left), known)
    _likeness(tidy(right), known)
    heading(figure, _TITLE, f"{n_seeds} seeds, which differ in initialisation and order of the data")
    return figure


def _bars(axes: Axes, known: pd.DataFrame) -> None:
    sites = list(dict.fromkeys(known["site"]))
    judged = not known["certified"].eq("unknown").any()
    kinds = {
        "certified" if judged else "found in all": known["certified"].eq("yes")
        if judged
        else known["stability"].eq(1),
        "found in none": known["stability"].eq(0),
    }
    certain, none = kinds
    kinds = {certain: kinds[certain], "found in some": ~(kinds[certain] | kinds[none]), none: kinds[none]}
    bottom = np.zeros(len(sites))
    for (name, chosen), colour in zip(kinds.items(), (BLUE, SKY, FAINT), strict=True):
        of_site = chosen.groupby(known["site"], sort=False)
        share, counted = of_site.mean().loc[sites].to_numpy(), of_site.sum().loc[sites]
        axes.bar(range(len(sites)), share, bottom=bottom, width=0.68, color=colour, label=name)
        for x, (height, base, count) in enumerate(zip(share, bottom, counted, strict=True)):
            if height >= 0.05:
                ink = "white" if colour == BLUE else INK
                axes.text(
                    x,
                    base + height / 2,
                    f"{int(count):,}",
                    ha="center",
                    va="center",
                    fontsize=SMALL,
                    color=ink,
                )
        bottom += share
    labels = [
        site_label(site).replace(" ", "\n", 1).replace("layer\n", "layer ").replace(" mixer", "\nmixer")
        for site in sites
    ]
    axes.set_xticks(range(len(sites)), labels)
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of living features")
    quiet_legend(axes, loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=3)


def _likeness(axes: Axes, known: pd.DataFrame) -> None:
    certain = known["certified"].eq("yes")
    for chosen, colour, name in ((~certain, MUTED, "other"), (certain, BLUE, "certified")):
        part = known[chosen]
        axes.plot(
            part["best_cosine"], part["correlation"], ".", color=colour, markersize=3, alpha=0.6, label=name
        )
    axes.axvline(_LIMIT, color=FAINT, linewidth=1, zorder=0)
    axes.axhline(_LIMIT, color=FAINT, linewidth=1, zorder=0)
    low = min(0.0, float(known[["best_cosine", "correlation"]].min().min()) - 0.05)
    axes.set_xlim(low, 1.03)
    axes.set_ylim(low, 1.03)
    axes.set_title("Most alike feature, mean over seeds", loc="left", fontsize=TEXT)
    axes.set_xlabel("cosine of decoder rows")
    axes.set_ylabel("correlation of held-out codes")
