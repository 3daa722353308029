"""The cause matrix: which feature moves the prediction for which kind of edit."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helix_sae.figures.heatmap import PALETTE
from helix_sae.figures.style import INK, MUTED, SMALL, heading, new_figure, nothing_to_draw
from helix_sae.names import feature_name

_LEAST_ROW = 0.19


def cause_heatmap(matrix: pd.DataFrame, *, n: int = 40) -> Figure:
    """Mean effect of every tested feature (rows) for every cause (columns), confirmed cells marked.

    Parameters
    ----------
    matrix : DataFrame
        ``site, feature, kind, role, effect, low, high, confirmed``
        (:func:`helix_sae.causal.causes.cause_matrix`), and ``certified`` where it is known.
    n : int
        Features shown, those with the largest effect for some cause.

    Returns
    -------
    Figure
    """
    if matrix.empty:
        return nothing_to_draw("Which feature carries which cause", "no feature was tested")
    keys = ["site", "feature"]
    cells = matrix.assign(feature=matrix["feature"].astype(str))
    effect = cells.pivot_table(index=keys, columns="kind", values="effect", sort=False)
    confirmed = cells.assign(confirmed=cells["confirmed"].astype(float)).pivot_table(
        index=keys, columns="kind", values="confirmed", sort=False
    )
    kept = effect.abs().max(axis=1).sort_values(ascending=False, kind="stable").index[:n]
    # Features with one cause stand together.
    order = sorted(
        kept, key=lambda key: (int(np.argmax(effect.loc[key].abs())), -effect.loc[key].abs().max())
    )
    shown, marks = effect.loc[order].to_numpy(), confirmed.loc[order].to_numpy() > 0
    decoys = set(cells.loc[cells["role"] == "decoy", "kind"])
    figure = new_figure(3.6 + 0.55 * shown.shape[1], 2.3 + _LEAST_ROW * len(order))
    axes = figure.subplots()
    limit = float(np.abs(shown).max()) or 1.0
    # Effects span orders of magnitude: the root shows the small ones beside the large.
    image = axes.imshow(
        np.sign(shown) * np.sqrt(np.abs(shown) / limit), cmap=PALETTE, vmin=-1, vmax=1, aspect="auto"
    )
    y, x = np.nonzero(marks)
    dark = np.abs(shown[y, x]) > 0.3 * limit
    axes.scatter(
        x, y, s=16, facecolor="none", edgecolor=np.where(dark, "white", INK).tolist(), linewidths=1.1
    )
    names = [str(kind).replace("_", " ") + (" (decoy)" if kind in decoys else "") for kind in effect.columns]
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=SMALL)
    known = {} if "certified" not in cells else cells.groupby(keys)["certified"].first().to_dict()
    axes.set_yticks(
        range(len(order)),
        [
            feature_name(str(site), feature) + (" ✓" if known.get((site, feature)) == "yes" else "")
            for site, feature in order
        ],
        fontsize=7,
    )
    axes.tick_params(length=0, colors=INK)
    axes.set_xticks(np.arange(shown.shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(order) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.7)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.03, ticks=[-1, -0.5, 0, 0.5, 1])
    bar.ax.set_yticklabels(
        [f"{sign * limit * share:.2g}" for sign, share in ((-1, 1), (-1, 0.25), (0, 0), (1, 0.25), (1, 1))]
    )
    bar.ax.tick_params(labelsize=7, colors=INK, length=2)
    bar.ax.set_ylabel("mean effect, towards the difference of the pairs", fontsize=SMALL, color=MUTED)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    ticks = "; ✓: certified" if "yes" in known.values() else ""
    heading(figure, "Which feature carries which cause", f"Ring: confirmed on validation families{ticks}")
    return figure
