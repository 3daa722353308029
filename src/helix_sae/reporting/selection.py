"""Which features get a page in the atlas."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import pandas as pd

from helix_sae.figures.style import property_label
from helix_sae.reporting.document import truth

CAUSAL, ASSOCIATED = "causal effect", "association"


def choose_features(
    effects: pd.DataFrame | None, significant: pd.DataFrame | None, n_features: int
) -> pd.DataFrame:
    """Take features in turn from the largest causal effects and the best associations.

    Parameters
    ----------
    effects : DataFrame or None
        ``site, feature, confirmed, discovery_oriented`` and, for the order of the confirmed ones,
        ``validation_oriented`` (:func:`helix_sae.causal.inference.select_and_test`). Error nodes are no
        features.
    significant : DataFrame or None
        ``site, feature, property, replicated, effect, validation_effect``
        (:func:`helix_sae.statistics.associate.associate`).
    n_features : int
        Features in all; fewer when there are not so many.

    Returns
    -------
    DataFrame
        ``site, feature`` (int), ``chosen_for`` (``causal effect``, ``association`` or both joined by ``, ``)
        and ``reason``, in the order of the pages.
    """
    reasons: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for pair in zip_longest(_by_effect(effects), _by_association(significant)):
        for item in pair:
            if item is None:
                continue
            key, why, text = item
            if key in reasons:
                reasons[key].append((why, text))
            elif len(reasons) < n_features:
                reasons[key] = [(why, text)]
    rows: list[dict[str, Any]] = []
    for (site, feature), found in reasons.items():
        kinds = list(dict.fromkeys(why for why, _ in found))
        text = dict(reversed(found))  # the first reason of each kind
        rows.append(
            {
                "site": site,
                "feature": feature,
                "chosen_for": ", ".join(kinds),
                "reason": "; ".join(text[why] for why in kinds),
            }
        )
    return pd.DataFrame(rows, columns=["site", "feature", "chosen_for", "reason"]).astype(
        {"feature": "int64"}
    )


_Choice = tuple[tuple[str, int], str, str]


def _by_effect(effects: pd.DataFrame | None) -> list[_Choice]:
    """Confirmed features by their held-out effect, then the rest by the effect on the discovery pairs."""
    if effects is None or effects.empty:
        return []
    table = effects[effects["feature"].astype(str) != "error"]
    size = table["discovery_oriented"].abs()
    confirmed = truth(table["confirmed"])
    size = size.where(~confirmed, table["validation_oriented"].abs())
    table = table.assign(_confirmed=confirmed, _size=size).sort_values(
        ["_confirmed", "_size"], ascending=False, kind="stable"
    )
    return [
        (
            (str(site), int(feature)),
            CAUSAL,
            f"rank {rank} by causal effect, "
            + ("confirmed" if held else "not confirmed")
            + " on held-out families",
        )
        for rank, (site, feature, held) in enumerate(
            zip(table["site"], table["feature"], table["_confirmed"], strict=True), start=1
        )
    ]


def _by_association(significant: pd.DataFrame | None) -> list[_Choice]:
    """The strongest feature of every property, then the second of every property...; replicated ones first."""
    if significant is None or significant.empty:
        return []
    table = significant.assign(
        _replicated=truth(significant["replicated"]),
        _size=significant["validation_effect"].abs().fillna(0.0),
    ).sort_values(["_replicated", "_size"], ascending=False, kind="stable")
    table["_turn"] = table.groupby(["_replicated", "property"], observed=True).cumcount()
    table = table.sort_values(
        ["_replicated", "_turn", "_size"], ascending=[False, True, False], kind="stable"
    )
    return [
        (
            (str(site), int(feature)),
            ASSOCIATED,
            f"no. {turn + 1} for {property_label(str(name))}, "
            + ("replicated" if held else "not replicated"),
        )
        for site, feature, name, turn, held in zip(
            table["site"],
            table["feature"],
            table["property"],
            table["_turn"],
            table["_replicated"],
            strict=True,
        )
    ]
