"""Effects of single features, of designed edits, and of whole blocks."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helix_sae.figures.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    SMALL,
    TEXT,
    VERMILLION,
    difference_words,
    heading,
    new_figure,
    ordered_colours,
    quiet_legend,
    short_label,
    tidy,
)
from helix_sae.names import feature_name


def feature_effects(selection: pd.DataFrame, *, target: str, n: int = 20) -> Figure:
    """The features of largest effect on the held-out pairs, with intervals.

    Parameters
    ----------
    selection : DataFrame
        ``site, feature, selected, confirmed, q_value, discovery_oriented``,
        ``validation_oriented, validation_low, validation_high``.
    target : str
        The property predicted.
    n : int
        Features shown, those chosen on the discovery pairs that have the largest held-out effect.

    Returns
    -------
    Figure
    """
    chosen = selection[selection["selected"] & selection["validation_oriented"].notna()]
    top = chosen.reindex(
        chosen["validation_oriented"].abs().sort_values(ascending=False, kind="stable").index
    ).head(n)
    sites = list(dict.fromkeys(selection["site"].sort_values()))
    colours = dict(zip(sites, ordered_colours(len(sites)), strict=True))
    figure = new_figure(6.4, 1.3 + 0.24 * max(len(top), 3))
    axes = tidy(figure.add_subplot(), grid="x")
    for y, row in enumerate(top.itertuples(index=False)):
        colour = colours[row.site]
        axes.plot(
            [row.validation_low, row.validation_high],
            [y, y],
            color=colour,
            linewidth=2.0,
            solid_capstyle="butt",
        )
        face = colour if row.confirmed else "white"
        axes.plot(row.validation_oriented, y, "o", color=colour, markerfacecolor=face, markersize=6, zorder=4)
        axes.plot(row.discovery_oriented, y, "|", color=MUTED, markersize=8, zorder=3)
    axes.axvline(0.0, color=INK, linewidth=0.9)
    axes.set_yticks(
        range(len(top)), [feature_name(str(r.site), r.feature) for r in top.itertuples(index=False)]
    )
    axes.set_ylim(len(top) - 0.4, -0.6)
    axes.set_xlabel(f"effect on predicted {short_label(target)}, towards the pair's difference")
    _effect_key(axes)
    heading(figure, f"Features that move predicted {short_label(target)}")
    return figure


def _effect_key(axes: Axes) -> None:
    axes.plot([], [], "o", color=INK, label="held out, confirmed (BH)")
    axes.plot([], [], "o", color=INK, markerfacecolor="white", label="held out, not confirmed")
    axes.plot([], [], "|", color=MUTED, markersize=8, label="discovery")
    quiet_legend(
        axes, loc="upper center", bbox_to_anchor=(0.4, -0.13 if axes.get_ylim()[0] > 8 else -0.3), ncols=3
    )


def block_comparison(blocks: pd.DataFrame) -> Figure:
    """What can be recovered at each site, and over how many features its effect is spread.

    Parameters
    ----------
    blocks : DataFrame
        ``site, recovered, recovered_low, recovered_high, recovered_with_error*``, ``share``,
        ``effective_features``, ``n_nodes``.

    Returns
    -------
    Figure
    """
    figure = new_figure(7.6, 3.4)
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.5, 1, 1])
    x = np.arange(len(blocks))
    labels = [_block_label(s) for s in blocks["site"]]
    tidy(left)
    for offset, name, colour, words in (
        (-0.2, "recovered", BLUE, "all features"),
        (0.2, "recovered_with_error", ORANGE, "features and error"),
    ):
        value = blocks[name].to_numpy(dtype=np.float64)
        spread = np.abs(
            np.stack([value - blocks[f"{name}_low"], blocks[f"{name}_high"] - value]).astype(np.float64)
        )
        left.bar(x + offset, value, width=0.38, color=colour, label=words)
        left.errorbar(
            x + offset, value, yerr=np.nan_to_num(spread), fmt="none", ecolor=INK, elinewidth=1.0, capsize=2
        )
    left.axhline(0.0, color=INK, linewidth=0.8)
    left.set_ylabel("share of the difference recovered")
    left.set_title("Ceiling of the block alone", loc="left", fontsize=TEXT)
    quiet_legend(left, loc="best")
    for axes, name, title, label in (
        (middle, "share", "Where the effect is", "share of all features' effect"),
        (right, "effective_features", "How spread it is", "effective number of features"),
    ):
        tidy(axes)
        axes.bar(x, blocks[name], width=0.6, color=GREEN if name == "share" else "#7A7A7A")
        axes.set_title(title, loc="left", fontsize=TEXT)
        axes.set_ylabel(label)
    for axes in (left, middle, right):
        axes.set_xticks(x, labels)
    heading(figure, "The blocks compared")
    return figure


def _block_label(site: str) -> str:
    parts = site.removeprefix("layers.").split(".")
    return parts[0] if len(parts) == 1 else f"{parts[0]}\n{parts[1].replace('_', ' ')}"


def predicted_difference(
    comparison: pd.DataFrame, *, target: str, agreement: pd.DataFrame | None = None
) -> Figure:
    """Predicted against known difference of every pair.

    Parameters
    ----------
    comparison : DataFrame
        ``predicted_difference, difference, split, is_sham``, one row a pair.
    target : str
        The property.
    agreement : DataFrame, optional
        ``split, has_indel, spearman, low, high, n_pairs`` for the words in the figure.

    Returns
    -------
    Figure
    """
    name = short_label(target)
    kind = difference_words(comparison)
    figure = new_figure(4.6, 4.4)
    axes = tidy(figure.add_subplot(), grid="both")
    looks = {"discovery": ("#B8B8B8", 14), "validation": (BLUE, 22)}
    for split, (colour, size) in looks.items():
        part = comparison[(comparison["split"] == split) & ~comparison["is_sham"].astype(bool)]
        words = "held out" if split == "validation" else split
        axes.scatter(
            part["difference"],
            part["predicted_difference"],
            s=size,
            color=colour,
            alpha=0.8,
            linewidths=0,
            label=f"{words} ({len(part)})",
        )
    shams = comparison[comparison["is_sham"].astype(bool)]
    if len(shams):
        axes.scatter(
            shams["difference"],
            shams["predicted_difference"],
            s=12,
            marker="x",
            color=VERMILLION,
            linewidths=0.8,
            label=f"sham ({len(shams)})",
        )
    reach = _reach(comparison)
    axes.plot([-reach, reach], [-reach, reach], color=MUTED, linewidth=0.8, linestyle="--", zorder=1)
    axes.axhline(0.0, color=FAINT, linewidth=0.8, zorder=0)
    axes.axvline(0.0, color=FAINT, linewidth=0.8, zorder=0)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_aspect("equal")
    axes.set_xlabel(f"{kind} difference in {name}")
    axes.set_ylabel(f"predicted difference in {name}")
    quiet_legend(axes, loc="upper left")
    if agreement is not None and len(agreement):
        axes.text(
            0.98,
            0.03,
            _in_words(agreement),
            transform=axes.transAxes,
            ha="right",
            va="bottom",
            fontsize=SMALL,
            color=INK,
        )
    heading(figure, f"Predicted and {kind} differences")
    return figure


def _reach(comparison: pd.DataFrame) -> float:
    values = comparison[["difference", "predicted_difference"]].abs().to_numpy(dtype=np.float64)
    return 1.08 * float(np.nanmax(values, initial=0.0)) or 1.0


def _in_words(agreement: pd.DataFrame) -> str:
    rows = agreement[(agreement["split"] == "validation") & ~agreement["has_indel"].astype(bool)]
    return "\n".join(
        f"held out: Spearman {r.spearman:.2f} [{r.low:.2f}, {r.high:.2f}]"
        for r in rows.itertuples(index=False)
    )


def position_effects(positions: pd.DataFrame, *, target: str) -> Figure:
    """Differences and the largest single-feature effect, by how much of the sequence follows the edit.

    Parameters
    ----------
    positions : DataFrame
        ``has_indel, following_low, following_high, n_pairs, predicted, known, feature_effect`` with
        ``feature_effect_low``, ``feature_effect_high``; one row a stratum.
        ``difference_kind`` names what is known.
    target : str
        The property.

    Returns
    -------
    Figure
    """
    figure = new_figure(5.6, 3.9)
    axes = tidy(figure.add_subplot())
    x = np.arange(len(positions), dtype=np.float64)
    for offset, name, colour, words in (
        (-0.12, "known", "#9A9A9A", f"{difference_words(positions)} difference"),
        (0.0, "predicted", ORANGE, "predicted difference"),
    ):
        axes.plot(x + offset, positions[name], "o", color=colour, markersize=6, label=f"mean |{words}|")
    value = positions["feature_effect"].to_numpy(dtype=np.float64)
    low, high = (positions[f"feature_effect_{end}"].to_numpy(dtype=np.float64) for end in ("low", "high"))
    spread = np.nan_to_num(np.stack([value - low, high - value]))
    axes.errorbar(
        x + 0.12, value, yerr=spread, fmt="o", color=BLUE, markersize=6, elinewidth=1.6,
        label="mean largest |effect| of a feature",
    )  # fmt: skip
    axes.set_xticks(
        x,
        [
            f"{100 * r.following_low:.0f}–{100 * r.following_high:.0f} %\n{int(r.n_pairs)} pairs"
            + ("\nwith indels" if r.has_indel else "")
            for r in positions.itertuples(index=False)
        ],
    )
    axes.set_xlim(-0.5, max(len(positions), 1) - 0.5)
    axes.set_ylim(0, None)
    axes.set_xlabel("share of the sequence from the first edit on")
    axes.set_ylabel(f"change of {short_label(target)}")
    quiet_legend(figure, loc="outside lower center", ncols=2)
    heading(figure, "Effects by the position of the edit")
    return figure


def designed_effects(designed: pd.DataFrame, *, target: str) -> Figure:
    """Edits of each kind beside their shams.

    Parameters
    ----------
    designed : DataFrame
        ``kind, role, total_effect, predicted_difference``, one row a pair.
    target : str
        The property predicted.

    Returns
    -------
    Figure
    """
    kinds = designed.groupby("kind")["total_effect"].median().sort_values(ascending=False).index.tolist()
    figure = new_figure(7.6, 1.6 + 0.42 * max(len(kinds), 2))
    left, right = figure.subplots(1, 2, sharey=True)
    looks = {"effect": (BLUE, -0.17), "sham": ("#9A9A9A", 0.17), "decoy": (ORANGE, -0.17)}
    for axes, column, label in (
        (left, "total_effect", f"sum of the features' |effects| on {short_label(target)}"),
        (right, "predicted_difference", f"predicted difference in {short_label(target)}"),
    ):
        tidy(axes, grid="x")
        for role, (colour, offset) in looks.items():
            parts = [
                designed.loc[(designed["kind"] == k) & (designed["role"] == role), column] for k in kinds
            ]
            _strips(axes, parts, offset, colour)
        axes.set_xlabel(label)
    right.axvline(0.0, color=INK, linewidth=0.8)
    left.set_yticks(range(len(kinds)), [str(k).replace("_", " ") for k in kinds])
    left.set_ylim(max(len(kinds), 1) - 0.5, -0.5)
    left.set_xlim(0, None)
    for role, (colour, _) in looks.items():
        if (designed["role"] == role).any():
            right.plot([], [], "o", color=colour, label=role)
    if kinds:
        quiet_legend(right, loc="lower right")
    controlled = designed["role"].isin(["sham", "decoy"]).any()
    heading(figure, "Designed edits and their shams" if controlled else "Effects by kind of pair")
    return figure


def _strips(axes: Axes, parts: list[pd.Series], offset: float, colour: str) -> None:
    """Points of each kind, spread by their rank so that the picture is the same each time, and their median."""
    for y, values in enumerate(parts):
        if not len(values):
            continue
        spread = 0.1 * np.sin(np.arange(len(values)) * 2.4)
        axes.scatter(values, y + offset + spread, s=9, color=colour, alpha=0.55, linewidths=0)
        middle = float(values.median())
        axes.plot([middle, middle], [y + offset - 0.16, y + offset + 0.16], color=INK, linewidth=1.8)
