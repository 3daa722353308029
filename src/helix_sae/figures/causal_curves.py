"""Cumulative interventions: how much of the prediction a growing set of features brings about."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helix_sae.figures.style import (
    BLUE,
    CYCLE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    TEXT,
    VERMILLION,
    heading,
    new_figure,
    quiet_legend,
    tidy,
)
from helix_sae.names import feature_name

_KINDS = {
    "sufficiency": (BLUE, "patched into the source"),
    "necessity": (VERMILLION, "left patched, the k best given back"),
}

_NAMES = {
    "sae": "SAE features",
    "neurons": "neurons",
    "pca": "principal components",
    "pca_rectified": "rectified components",
    "ica": "independent components",
    "random_directions": "random directions",
    "random_sae": "untrained SAE",
    "das": "supervised (ceiling)",
}

_RANKINGS = {
    "atp": "SAE, ranked by gradient",
    "difference": "SAE, ranked by difference",
    "masks": "SAE, ranked by masks",
    "random": "SAE, random order",
}

_QUALITY = {
    "faithfulness": (BLUE, "o", "the circuit alone"),
    "completeness": (VERMILLION, "s", "everything but the circuit"),
    "masks": (GREEN, "D", "as many by learnt masks"),
    "random": ("#9A9A9A", "v", "as many random nodes"),
}

_OTHERS = (VERMILLION, PURPLE, ORANGE, "#7F5539", "#B5476B", "#5B6770")
"""Colours of the baselines: those of the palette that can be seen as a thin line, and some that stand apart
from them."""

_STYLES = ("-", "--", "-.", ":")


def intervention_curves(
    curves: pd.DataFrame, *, dictionary: str = "sae", ranking: str = "exact", level: float = 0.8
) -> Figure:
    """Sufficiency and necessity against the number of features and against the size of the edit.

    Parameters
    ----------
    curves : DataFrame
        ``dictionary, ranking, curve, k, faithfulness, low, high, edit_magnitude, n_pairs, n_clusters``, one
        row a point.
    dictionary, ranking : str
        Which rows are drawn.
    level : float
        A horizontal guide.

    Returns
    -------
    Figure
    """
    rows = curves[(curves["dictionary"] == dictionary) & (curves["ranking"] == ranking)]
    figure = new_figure(7.4, 3.6)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, x, label in (
        (left, "k", "number of features"),
        (right, "edit_magnitude", "size of the edit (mean norm a nucleotide)"),
    ):
        tidy(axes)
        for kind, (colour, words) in _KINDS.items():
            part = rows[rows["curve"] == kind].sort_values("k")
            if len(part):
                (_band if x == "k" else _bars)(axes, part, x, colour, words)
        for height, style in ((0.0, "-"), (level, ":"), (1.0, "--")):
            axes.axhline(height, color=MUTED, linewidth=0.8, linestyle=style, zorder=0)
        axes.set_xlabel(label)
    _logarithmic(left)
    left.set_ylabel("share of the difference recovered")
    left.set_ylim(*_limits(rows))
    if len(rows):
        quiet_legend(left, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
        counts = rows.iloc[0]
        note = (
            f"{int(counts['n_pairs'])} held-out pairs of {int(counts['n_clusters'])} families; bands: 95 %"
            " cluster bootstrap"
        )
        right.set_title(note, loc="right", fontsize=SMALL - 1, fontweight="normal", color=MUTED)
    heading(figure, "Cumulative interventions")
    return figure


def baseline_curves(curves: pd.DataFrame, summary: pd.DataFrame, *, reference: str = "sae") -> Figure:
    """Every dictionary's sufficiency against the number of features, and how far the reference leads.

    Parameters
    ----------
    curves : DataFrame
        As in :func:`intervention_curves`.
    summary : DataFrame
        ``dictionary, ranking, log_area, lead, lead_low, lead_high``.
    reference : str
        The dictionary whose lead is shown.

    Returns
    -------
    Figure
    """
    order = list(summary[["dictionary", "ranking"]].itertuples(index=False, name=None))
    looks = {key: (_colour(i, key, reference), _STYLES[i // len(CYCLE) % 4]) for i, key in enumerate(order)}
    figure = new_figure(8.6, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=[1.35, 1])
    tidy(left)
    sufficient = curves[curves["curve"] == "sufficiency"]
    for key, (colour, style) in looks.items():
        part = sufficient[
            (sufficient["dictionary"] == key[0]) & (sufficient["ranking"] == key[1])
        ].sort_values("k")
        own = key == order[0]
        left.plot(
            part["k"],
            part["faithfulness"],
            color=colour,
            linestyle="--" if key[1] in _RANKINGS else style,
            linewidth=2.2 if own else 1.3,
            marker="o",
            markersize=3.5 if own else 2.2,
            label=dictionary_label(*key),
            zorder=4 if own else 3,
        )
        if own:
            left.fill_between(part["k"], part["low"], part["high"], color=colour, alpha=0.15, linewidth=0)
    for height, style in ((0.0, "-"), (1.0, "--")):
        left.axhline(height, color=MUTED, linewidth=0.8, linestyle=style, zorder=0)
    _logarithmic(left)
    left.set_xlabel("number of features patched")
    left.set_ylabel("share of the difference recovered")
    left.set_ylim(*_limits(sufficient))
    if len(sufficient):
        first = sufficient.iloc[0]
        note = (
            f"{int(first['n_pairs'])} held-out pairs of {int(first['n_clusters'])} families; band: 95 %"
            " cluster bootstrap"
        )
        left.set_title(note, loc="left", fontsize=SMALL - 1, fontweight="normal", color=MUTED)
        quiet_legend(figure, loc="outside lower left", ncols=4, columnspacing=1.2)
    _forest(right, summary, order, looks)
    heading(figure, "Are the features better than other directions?")
    return figure


def acdc_curves(steps: pd.DataFrame) -> Figure:
    """Divergence from the target against the number of nodes left, for every visiting order.

    Parameters
    ----------
    steps : DataFrame
        ``order, tau, step, n_nodes, divergence, edit_magnitude, screening``.

    Returns
    -------
    Figure
    """
    figure = new_figure(7.4, 3.9)
    left, right = figure.subplots(1, 2, sharey=True)
    orders = list(dict.fromkeys(steps["order"]))
    for axes, x, label in (
        (left, "n_nodes", "nodes left"),
        (right, "edit_magnitude", "size of the edit (mean norm a nucleotide)"),
    ):
        tidy(axes, grid="both")
        for i, order in enumerate(orders):
            part = steps[steps["order"] == order].sort_values("step")
            first = order == "attribution"
            axes.plot(
                part[x],
                part["divergence"],
                color=BLUE if first else CYCLE[1 + (i - 1) % 3],
                linewidth=2.0 if first else 1.0,
                linestyle="-" if first else _STYLES[1 + (i - 1) % 3],
                label="visited by attribution" if first else f"in {order.replace('_', ' order ')}",
                drawstyle="steps-post",
                zorder=4 if first else 3,
            )
        axes.set_xlabel(label)
        if _spans_decades(steps["divergence"]):
            axes.set_yscale("symlog", linthresh=1e-3)
    _logarithmic(left)
    left.invert_xaxis()
    right.invert_xaxis()
    left.set_ylabel("divergence from the target (nats)")
    if not orders:
        return figure
    # Below: the curves may be anywhere.
    quiet_legend(left, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    screening = str(steps["screening"].iloc[0])
    words = "one node at a time" if screening == "none" else "whole blocks first, halved (a screening)"
    right.set_title(words, loc="right", fontsize=SMALL, fontweight="normal", color=MUTED)
    heading(figure, "Pruning the full patch to a circuit (ACDC)")
    return figure


def circuit_quality(quality: pd.DataFrame, contributions: pd.DataFrame, *, n: int = 20) -> Figure:
    """What the circuits of a sweep bring about on held-out pairs, and what each node adds to one of them.

    Parameters
    ----------
    quality : DataFrame
        ``tau, n_nodes, faithfulness, completeness, random`` with ``*_low, *_high``, ``n_pairs, n_clusters``.
    contributions : DataFrame
        ``site, feature, contribution, tau``, of the circuit of one tau.
    n : int
        Nodes shown, those that add most.

    Returns
    -------
    Figure
    """
    figure = new_figure(8.2, 3.9)
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    tidy(left)
    rows = quality.sort_values("n_nodes")
    for name, (colour, marker, words) in _QUALITY.items():
        if name not in rows:
            continue
        left.fill_between(
            rows["n_nodes"], rows[f"{name}_low"], rows[f"{name}_high"], color=colour, alpha=0.15, linewidth=0
        )
        left.plot(rows["n_nodes"], rows[name], color=colour, marker=marker, markersize=4, label=words)
    for height, style in ((0.0, "-"), (1.0, "--")):
        left.axhline(height, color=MUTED, linewidth=0.8, linestyle=style, zorder=0)
    _logarithmic(left)
    left.set_xlabel("nodes of the circuit")
    left.set_ylabel("share of the difference recovered")
    quiet_legend(left, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    if len(rows):
        first = rows.iloc[0]
        note = f"{int(first['n_pairs'])} held-out pairs of {int(first['n_clusters'])} families"
        left.set_title(note, loc="left", fontsize=SMALL, fontweight="normal", color=MUTED)
    tidy(right, grid="x")
    top = contributions.head(n)
    colours = [
        MUTED if str(f) == "error" else BLUE if c >= 0 else VERMILLION
        for f, c in zip(top["feature"], top["contribution"], strict=True)
    ]
    right.barh(range(len(top)), top["contribution"].to_numpy(dtype=float), color=colours, height=0.7)
    labels = [feature_name(str(s), f) for s, f in zip(top["site"], top["feature"], strict=True)]
    right.set_yticks(range(len(top)), labels, fontsize=SMALL - 1)
    right.set_ylim(max(len(top), 1) - 0.4, -0.6)
    right.axvline(0.0, color=INK, linewidth=0.9)
    right.set_xlabel("share of the circuit's gain lost without it")
    if len(top):
        more = f"; the first {n} of {len(contributions)} nodes" if len(contributions) > n else ""
        tau = float(contributions["tau"].iloc[0])
        right.set_title("What each node adds", loc="left", fontsize=TEXT)
        right.set_xlabel(f"{right.get_xlabel()}\n(τ = {tau:g}{more})")
    heading(figure, "The circuits on held-out pairs")
    return figure


def _spans_decades(divergence: pd.Series) -> bool:
    """Whether a logarithmic axis would show more than one labelled tick."""
    return bool(len(divergence)) and divergence.max() > 30 * max(float(divergence.min()), 1e-3)


def dictionary_label(dictionary: str, ranking: str) -> str:
    """A dictionary and its ranking in words."""
    name = _NAMES.get(dictionary, dictionary.replace("_", " "))
    return _RANKINGS.get(ranking, name) if dictionary == "sae" else name


def _band(axes: Axes, part: pd.DataFrame, x: str, colour: str, label: str) -> None:
    axes.fill_between(part[x], part["low"], part["high"], color=colour, alpha=0.18, linewidth=0)
    axes.plot(
        part[x], part["faithfulness"], color=colour, marker="o", markersize=3.2, linewidth=1.6, label=label
    )


def _bars(axes: Axes, part: pd.DataFrame, x: str, colour: str, label: str) -> None:
    """Points in the order of k with bars: along the size of the edit a curve may turn back, which no band can follow."""
    value = part["faithfulness"].to_numpy(dtype=float)
    spread = np.nan_to_num(np.stack([value - part["low"], part["high"] - value]).astype(float)).clip(0.0)
    axes.errorbar(
        part[x], value, yerr=spread, color=colour, marker="o", markersize=3.2, linewidth=1.2, elinewidth=0.9,
        alpha=0.85, label=label,
    )  # fmt: skip


def _logarithmic(axes: Axes) -> None:
    """A logarithmic axis of counts that has a place for zero."""
    right = axes.get_xlim()[1]
    axes.set_xscale("symlog", linthresh=1.0, linscale=0.4)
    axes.set_xlim(-0.4, 1.2 * max(right, 1.0))  # room for the last marker
    ticks = [0, *(int(t) for t in 4.0 ** np.arange(0, 10) if t <= right * 1.01)]
    axes.set_xticks(ticks, [f"{t:,}" for t in ticks])
    axes.minorticks_off()


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Room for the curves, not for the wildest ends of their bands."""
    if not len(rows):
        return -0.1, 1.1
    low, high = float(rows["faithfulness"].min()), float(rows["faithfulness"].max())
    band_low, band_high = rows["low"].quantile(0.05), rows["high"].quantile(0.95)
    low = min(low, float(np.nan_to_num(band_low, nan=low)))
    high = max(high, float(np.nan_to_num(band_high, nan=high)))
    return max(min(low, 0.0) - 0.08, -1.0), min(max(high, 1.0) + 0.08, 2.0)


def _colour(i: int, key: tuple[str, str], reference: str) -> str:
    if key[0] == reference:
        own = {"difference": "#7AA6C2", "random": "#9A9A9A", "atp": SKY, "masks": GREEN}
        return own.get(key[1], BLUE)
    return INK if key[0] == "das" else _OTHERS[i % len(_OTHERS)]


def _forest(
    axes: Axes,
    summary: pd.DataFrame,
    order: list[tuple[str, str]],
    looks: dict[tuple[str, str], tuple[str, str]],
) -> None:
    """Lead of the reference over each of the others, with its interval."""
    tidy(axes, grid="x")
    rows = summary.iloc[1:]
    for y, (row, key) in enumerate(zip(rows.itertuples(index=False), order[1:], strict=True)):
        colour = looks[key][0]
        axes.plot([row.lead_low, row.lead_high], [y, y], color=colour, linewidth=2.0, solid_capstyle="butt")
        axes.plot(row.lead, y, marker="o", color=colour, markersize=6)
    axes.axvline(0.0, color=INK, linewidth=0.9)
    axes.set_yticks(range(len(rows)), [dictionary_label(*key) for key in order[1:]], fontsize=SMALL)
    axes.set_ylim(len(rows) - 0.5, -0.6)
    axes.xaxis.label.set_fontsize(SMALL)
    axes.set_xlabel(
        "lead of the SAE features\nin mean closeness 1 − |1 − share|\n(below 0: the other is closer)"
    )
    axes.set_title("With equally many features", loc="left", fontsize=TEXT)
