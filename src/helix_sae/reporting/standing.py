"""What the features of a run are worth, in a few sentences made from its tables.

Which are certified, what carries a cause, and whether any of it beats directions that need no autoencoder.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from helix_sae.names import feature_name
from helix_sae.reporting.document import Statement, is_empty, truth
from helix_sae.reporting.sections.comparisons import judge, rivals_in_words
from helix_sae.reporting.wording import count, listing, percent, words

_NAMED = 2
"""Features named for each cause; the others are counted."""


def standing(
    stability: Mapping[str, pd.DataFrame] | None,
    causes: pd.DataFrame | None,
    baselines: pd.DataFrame | None,
) -> list[Statement]:
    """A sentence for each question that the tables answer; what was not asked is said so.

    Parameters
    ----------
    stability : mapping of site to DataFrame, or None
        A row a feature: ``certified`` (``yes``, ``no`` or ``unknown``), and ``alive`` where that is known.
    causes : DataFrame or None
        ``site, feature, kind, role, effect, confirmed`` and ``certified``
        (:func:`helix_sae.causal.causes.cause_matrix`).
    baselines : DataFrame or None
        ``dictionary, ranking, lead, lead_low, lead_high``, the reference first
        (:func:`helix_sae.causal.comparison.compare_dictionaries`).
    """
    return [_certified(stability), *_carriers(causes), *_rivals(baselines)]


def _certified(stability: Mapping[str, pd.DataFrame] | None) -> Statement:
    tables = [
        table[truth(table["alive"])] if "alive" in table else table for table in (stability or {}).values()
    ]
    known = [table["certified"] for table in tables if "certified" in table]
    if not known or any((column == "unknown").any() for column in known):
        return Statement("Whether the features come back in other seeds is not known.", "absent")
    certified = pd.concat(known) == "yes"
    return Statement(
        f"{int(certified.sum()):,} of {count(len(certified), 'living feature')}"
        f" ({percent(float(certified.mean()))}) are certified."
    )


def _carriers(causes: pd.DataFrame | None) -> list[Statement]:
    """The certified carriers of each cause, and the causes that have none."""
    if causes is None or is_empty(causes):
        return [Statement("Features were not tested for single causes.", "absent")]
    true = causes[causes["role"] != "decoy"]
    certified = true["certified"] if "certified" in true else pd.Series("unknown", index=true.index)
    is_known = not (certified == "unknown").any()
    carrying = true[truth(true["confirmed"]) & ((certified == "yes") | (not is_known))]
    named: list[str] = []
    for kind in dict.fromkeys(true["kind"]):
        own = carrying[carrying["kind"] == kind].sort_values("effect", key=abs, ascending=False)
        if len(own):
            names = [feature_name(str(r["site"]), r["feature"]) for r in own.head(_NAMED).to_dict("records")]
            rest = len(own) - len(names)
            named.append(f"{words(kind)} ({', '.join(names)}{f' and {rest} more' if rest else ''})")
    what = "Certified features" if is_known else "Features"
    without = [words(kind) for kind in dict.fromkeys(true["kind"]) if kind not in set(carrying["kind"])]
    statements: list[Statement] = []
    if named:
        statements.append(Statement(f"{what} carry {listing(named)}, each by itself."))
    if without:
        statements.append(Statement(f"None of them is confirmed for {listing(without)}.", "weak"))
    decoys = causes[(causes["role"] == "decoy") & truth(causes["confirmed"])]
    if len(decoys):
        kinds = [words(kind) for kind in dict.fromkeys(decoys["kind"])]
        statements.append(Statement(f"Some move the prediction for a decoy: {listing(kinds)}.", "weak"))
    return statements


def _rivals(baselines: pd.DataFrame | None) -> list[Statement]:
    if baselines is None or is_empty(baselines):
        return [Statement("They were not compared with other directions.", "absent")]
    return rivals_in_words(judge(baselines))
