"""Training history of the autoencoders, and how often their features fire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from plotly.subplots import make_subplots

from helix_sae.figures.style import (
    FAINT,
    INK,
    MUTED,
    SMALL,
    TEXT,
    heading,
    new_figure,
    ordered_colours,
    plotly_layout,
    quiet_legend,
    site_label,
    tidy,
)

_PANELS = (
    ("explained_variance", "explained variance", (None, 1.0)),
    ("l0", "active features per token (L0)", (0.0, None)),
    ("dead_share", "dead features (share)", (0.0, None)),
    ("mse", "mean squared error (scaled activations)", (None, None)),
)
_STYLES = ("solid", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_DASHES = ("solid", "dash", "dot", "dashdot")


def training_history(history: pd.DataFrame, metrics: pd.DataFrame | None = None) -> Figure:
    """Explained variance, L0, dead share and error by number of tokens, one line a site and configuration.

    Parameters
    ----------
    history : DataFrame
        ``site``, ``config``, ``tokens``, ``explained_variance``, ``l0``, ``dead_share``, ``mse``; of several
        seeds (``seed``) the first is drawn.
    metrics : DataFrame, optional
        The same measures on held-out tokens (``site``, ``config`` and the columns above as far as they are
        there): drawn as diamonds at the end of each line.

    Returns
    -------
    Figure
    """
    history, metrics = first_seed(history), None if metrics is None else first_seed(metrics)
    figure = new_figure(7.4, 4.8)
    sites = list(dict.fromkeys(history["site"]))
    configs = list(dict.fromkeys(history["config"]))
    colours = dict(zip(sites, ordered_colours(len(sites)), strict=True))
    for axes, (column, label, (low, high)) in zip(figure.subplots(2, 2).ravel(), _PANELS, strict=True):
        tidy(axes)
        for (site, config), part in history.groupby(["site", "config"], sort=False):
            name = site_label(str(site)) + (f", {config}" if len(configs) > 1 else "")
            axes.plot(
                part["tokens"] / 1e6,
                part[column],
                color=colours[str(site)],
                linestyle=_STYLES[configs.index(config) % len(_STYLES)],
                linewidth=1.4,
                label=name,
            )
        axes.set_title(label, loc="left", fontsize=TEXT)
        axes.set_xlabel("tokens seen (million)")
        if column == "mse" and (history[column] > 0).all():
            axes.set_yscale("log")
        if column == "explained_variance":
            low = max(-0.1, float(history[column].quantile(0.05)) - 0.1)
            axes.set_ylim(low, high)
        elif low is not None:
            axes.set_ylim(low, max(1e-3, float(history[column].max()) * 1.08))
        if metrics is not None and column in metrics.columns and column != "mse":
            _held_out(axes, metrics, column, history, colours)
    handles, names = figure.axes[0].get_legend_handles_labels()
    if metrics is not None:
        handles.append(Line2D([], [], marker="D", markersize=4, linestyle="", color=MUTED))
        names.append("held out")
    _legend_below(figure, handles, names)
    heading(figure, "Training of the sparse autoencoders")
    return figure


def first_seed(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the first seed of each configuration: of the autoencoder that is used."""
    return table[table["seed"] == 0] if "seed" in table else table


def _held_out(
    axes: Axes, metrics: pd.DataFrame, column: str, history: pd.DataFrame, colours: Mapping[str, str]
) -> None:
    """Held-out values as diamonds; the error is left out, for it is on the scale of the raw activations.

    A value beyond the axes is a triangle at their edge that points to it.
    """
    low, high = axes.get_ylim()
    for site, value in zip(metrics["site"], metrics[column], strict=True):
        end = history.loc[history["site"] == site, "tokens"].max() / 1e6
        marker = "v" if value < low else "^" if value > high else "D"
        place = min(max(value, low), high)
        axes.plot([end], [place], marker, color=colours[str(site)], markersize=4, clip_on=False, zorder=3)
    axes.set_ylim(low, high)


def training_history_interactive(history: pd.DataFrame) -> go.Figure:
    """The same for the browser."""
    figure: Any = make_subplots(rows=2, cols=2, subplot_titles=[label for _, label, _ in _PANELS])
    history = first_seed(history)
    sites = list(dict.fromkeys(history["site"]))
    configs = list(dict.fromkeys(history["config"]))
    colours = dict(zip(sites, ordered_colours(len(sites)), strict=True))
    for panel, (column, _, _) in enumerate(_PANELS):
        for (site, config), part in history.groupby(["site", "config"], sort=False):
            name = site_label(str(site)) + (f", {config}" if len(configs) > 1 else "")
            figure.add_trace(
                go.Scatter(
                    x=part["tokens"].to_list(),
                    y=part[column].to_list(),
                    mode="lines",
                    name=name,
                    legendgroup=name,
                    showlegend=panel == 0,
                    line={"color": colours[str(site)], "dash": _DASHES[configs.index(config) % len(_DASHES)]},
                ),
                row=panel // 2 + 1,
                col=panel % 2 + 1,
            )
    figure.update_xaxes(title_text="tokens seen", row=2)
    figure.update_layout(**plotly_layout(title="Training of the sparse autoencoders", height=640))
    return figure


def pareto(metrics: pd.DataFrame) -> Figure:
    """Explained variance against L0 on held-out tokens, a panel a site, a point a configuration.

    Parameters
    ----------
    metrics : DataFrame
        ``site``, ``config``, ``l0``, ``explained_variance``. Configurations named ``<family>_<anything>`` are
        one family, of one colour; the points of a family that no other point of the site beats in both
        measures are joined.

    Returns
    -------
    Figure
    """
    metrics = first_seed(metrics)
    sites = list(dict.fromkeys(metrics["site"]))
    families = list(dict.fromkeys(str(name).split("_")[0] for name in metrics["config"]))
    colours = dict(zip(families, ordered_colours(len(families)), strict=True))
    columns = min(2, len(sites))
    rows = -(-len(sites) // columns)
    figure = new_figure(max(5.4, 3.7 * columns), 0.9 + 2.4 * rows)
    panels = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)).ravel()
    for axes, site in zip(panels, sites, strict=False):
        tidy(axes)
        part = metrics[metrics["site"] == site].sort_values("l0")
        family = part["config"].astype(str).str.split("_").str[0]
        for name in families:
            points = part[family == name]
            best = points[points["explained_variance"] >= points["explained_variance"].cummax()]
            axes.plot(best["l0"], best["explained_variance"], color=colours[name], linewidth=1.2, zorder=2)
            axes.plot(
                points["l0"],
                points["explained_variance"],
                "o",
                color=colours[name],
                markersize=4,
                linestyle="",
                label=name,
                zorder=3,
            )
        axes.set_title(site_label(str(site)), loc="left", fontsize=TEXT)
    for axes in panels[len(sites) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(sites) - columns) : len(sites)]:
        axes.set_xlabel("active features per token (L0)")
        axes.xaxis.set_tick_params(labelbottom=True)
    for axes in panels[::columns]:
        axes.set_ylabel("explained variance")
    handles, names = panels[0].get_legend_handles_labels()
    _legend_below(figure, handles, names)
    heading(figure, "Explained variance against sparsity")
    return figure


def feature_density(density: Mapping[str, npt.NDArray[np.floating[Any]]]) -> Figure:
    """Histogram of how often features fire, one row a site; dead features counted beside it.

    Parameters
    ----------
    density : mapping site -> float (n_features,)
        Share of tokens on which each feature is active; 0 for dead ones.

    Returns
    -------
    Figure
    """
    figure = new_figure(6.2, 0.9 + 0.95 * len(density))
    values = {site: np.asarray(shares, dtype=np.float64) for site, shares in density.items()}
    smallest = min((float(v[v > 0].min()) for v in values.values() if (v > 0).any()), default=1e-3)
    edges = np.linspace(np.floor(np.log10(smallest)), 0, 61)
    panels = np.atleast_1d(figure.subplots(len(density), 1, sharex=True))
    colours = ordered_colours(len(density))
    for axes, (site, shares), colour in zip(panels, values.items(), colours, strict=True):
        tidy(axes, grid="x")
        alive = shares[shares > 0]
        counts, _ = np.histogram(np.log10(alive), bins=edges)
        axes.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=colour, linewidth=0)
        axes.axvspan(-1, 0, color=FAINT, alpha=0.35, linewidth=0, zorder=0)
        axes.set_ylim(0, max(1.0, counts.max(initial=0) * 1.45))
        axes.set_ylabel("features", fontsize=SMALL)
        axes.annotate(
            f"{site_label(site)}: {len(alive):,} alive, {len(shares) - len(alive):,} dead",
            xy=(0.01, 0.95),
            xycoords="axes fraction",
            va="top",
            fontsize=SMALL,
            color=INK,
        )
    ticks = np.arange(np.ceil(edges[0]), 1)
    panels[-1].set_xticks(ticks, [_power(int(t)) for t in ticks])
    panels[-1].set_xlim(edges[0], 0)
    panels[-1].set_xlabel("share of tokens on which the feature is active (grey: above 10 %)")
    heading(figure, "How often features fire")
    return figure


def _power(exponent: int) -> str:
    return "1" if exponent == 0 else "10" + str(exponent).translate(_SUPERSCRIPT)


def _legend_below(figure: Figure, handles: list[Artist], names: list[str]) -> None:
    """One legend for all panels of a figure."""
    quiet_legend(
        figure,
        handles=handles,
        labels=names,
        loc="outside lower center",
        ncols=min(4, len(names)),
        handlelength=2.0,
    )
