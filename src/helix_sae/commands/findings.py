"""The last screen of a run: what was found, in words for a reader who knows neither autoencoders nor Kedro."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from helix_sae.left_out import NOT_MADE
from helix_sae.names import SHIPPED
from helix_sae.reporting.wording import fixed, listing, percent, words

_MOST_NAMED = 3

_NOT_ASKED = "Not asked for; helix-sae run FILE, without --only, does all."

_WELL = 0.5
"""F1 from which a feature is said to mark an element."""

_SCORES = {
    "r2": "R² = {} (1 is perfect, 0 no better than the mean)",
    "auc": "an AUC of {} (1 is perfect, 0.5 a guess)",
}


def show_findings(console: Any, root: Path, log: Path, seconds: float) -> None:
    """Print what was found, and where it lies as links."""
    latest = root / "latest"
    summary = json.loads((latest / "summary.json").read_text(encoding="utf-8"))
    console.print()
    for finding in plain_findings(summary):
        console.print(f"  • {finding}", highlight=False, markup=False)
    for warning in summary["warnings"]:
        console.print(f"  ! {warning}", highlight=False, markup=False)
    for reason, parts in _left_out(summary).items():
        console.print(f"  – left out: {', '.join(parts)}. {reason}", highlight=False, markup=False)
    console.print()
    places = {
        "Report": latest / "report.html",
        "Feature atlas": latest / "atlas" / "index.html",
        "Figures": latest / "figures",
        "Tables": latest / "tables",
        "Log": log,
    }
    for name, path in places.items():
        console.print(f"{name:<14} [link={path.as_uri()}]{path}[/link]", highlight=False)
    console.print(f"To ask about any mRNA: helix-sae serve --data {root}", highlight=False, markup=False)
    console.print(f"{seconds / 60:.1f} min", highlight=False)


def plain_findings(summary: Mapping[str, Any]) -> list[str]:
    """One sentence, or two, of each part of the report that is there; the report has all with their intervals.

    Parameters
    ----------
    summary : mapping
        Of ``summary.json``: the numbers of each section by its key.
    """
    causes = _part(summary, "causes")
    told: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "data": _of_data,
        "autoencoders": _of_autoencoders,
        "associations": _of_associations,
        "concepts": _of_concepts,
        "prediction": _of_prediction,
        "effects": lambda numbers: _of_effects(numbers, causes),
        "comparisons": _of_comparisons,
    }
    return [
        sentence
        for part, words_of in told.items()
        if (numbers := _part(summary, part)) and (sentence := words_of(numbers))
    ]


def _part(summary: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    """The numbers of a section; nothing where it was left out."""
    numbers = cast("Mapping[str, Any]", summary.get(part) or {})
    return numbers if numbers.get("run", False) else {}


def _of_data(numbers: Mapping[str, Any]) -> str:
    split = cast("Mapping[str, int]", numbers.get("splits") or {})
    read = f"{numbers['n_records']:,} sequences were read, of {numbers['n_clusters']:,} families."
    if not {"discovery", "validation"} <= split.keys():
        return read
    found, checked = split["discovery"], split["validation"]
    return f"{read} What is found on {found:,} of the sequences is checked on the other {checked:,}."


def _of_autoencoders(numbers: Mapping[str, Any]) -> str:
    # A row a site, configuration and seed: those that went on are meant.
    rows, stable = _rows(numbers, "sites"), _rows(numbers, "stability")
    shipped = [row for row in rows if row.get("config") == SHIPPED]
    used = shipped or [row for row in rows if row.get("config") == numbers.get("chosen")]
    told = (row.get("explained_variance") for row in used if row.get("seed", 0) == 0)
    shares = sorted(float(share) for share in told if share is not None)
    n_features = sum(int(row["n_features"]) for row in stable)
    if not shares or not (shipped or n_features):
        return ""
    low, high = percent(shares[0]), percent(shares[-1])
    span = high if low == high else f"{low.removesuffix(' %')} to {high}"
    if shipped:
        return f"The features that come with the model tell {span} of what it computes of these sequences."
    certain = sum(int(row["n_certified"]) for row in stable)
    again = f"; {certain:,} of them are found again when the training is repeated" if certain else ""
    what = f"What the model computes was taken apart into {n_features:,} features"
    return f"{what}, which tell {span} of it{again}."


def _of_associations(numbers: Mapping[str, Any]) -> str:
    from helix_sae.figures.style import property_label  # noqa: PLC0415 - brings matplotlib

    n, held = (
        int(numbers.get("n_significant", 0)),
        cast("Mapping[str, Any]", numbers.get("replication") or {}),
    )
    if not n:
        return "No feature goes clearly along with a property of the sequences."
    properties = [property_label(str(row["property"])) for row in _rows(numbers, "top_replicated")]
    named = list(dict.fromkeys(properties))
    clearest = f" The clearest: {listing(named[:_MOST_NAMED])}." if named else ""
    return (
        f"{n:,} links between a feature and a property of the sequences were found, of which"
        f" {percent(held.get('rate'))} held on the others.{clearest}"
    )


def _of_concepts(numbers: Mapping[str, Any]) -> str:
    best = _rows(numbers, "best")
    found = [words(row["concept"]) for row in best if (row["f1"] or 0.0) >= _WELL]
    if not found:
        return "No single feature marks a known element of the sequences well."
    return f"Elements that single features mark best: {listing(found[:_MOST_NAMED])}."


def _of_prediction(numbers: Mapping[str, Any]) -> str:
    from helix_sae.figures.style import property_label  # noqa: PLC0415

    probe = cast("Mapping[str, Any]", numbers.get("probe") or {})
    if not probe:
        return ""
    metric = str(probe.get("metric"))
    score = _SCORES.get(metric, f"{metric} = {{}}").format(fixed(probe.get("validation")))
    target = property_label(str(probe["target"]))
    return f"From what the model computes, {target} of the others is predicted with {score}."


def _of_effects(numbers: Mapping[str, Any], causes: Mapping[str, Any]) -> str:
    rows = [row for row in _rows(causes, "confirmed") if row.get("role") != "decoy"]
    moving = {(row["site"], row["feature"]) for row in rows}
    if moving:
        found, tested, when = len(moving), int(causes["n_features"]), " for some kind of edit"
    else:
        found, tested, when = int(numbers.get("n_confirmed", 0)), int(numbers.get("n_tested", 0)), ""
    if not tested:
        return ""
    what = f"{found} of {tested} features tested {'moves' if found == 1 else 'move'}"
    what = what if found else "no feature was shown to move"
    return f"Changing one feature at a time inside the running model, {what} that prediction{when}."


def _of_comparisons(numbers: Mapping[str, Any]) -> str:
    reference = cast("Mapping[str, Any]", numbers.get("reference") or {})
    needed, n = reference.get("k_at_level"), reference.get("n_nodes")
    if not needed or not n:
        return ""
    share = percent(reference.get("level"))
    few = f"{int(needed)} of {int(n):,} features {'brings' if needed == 1 else 'together bring'} about"
    return f"{few} {share} of the difference between two predictions."


def _rows(numbers: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    return cast("Sequence[Mapping[str, Any]]", numbers.get(key) or ())


def _left_out(summary: Mapping[str, Any]) -> dict[str, list[str]]:
    """Why parts of the report are not there, and which."""
    found: dict[str, list[str]] = {}
    for part, numbers in summary.items():
        if isinstance(numbers, Mapping) and not cast("Mapping[str, Any]", numbers).get("run", True):
            reason = str(cast("Mapping[str, Any]", numbers)["reason"])
            # The parts that nobody asked for have one reason together.
            found.setdefault(_NOT_ASKED if NOT_MADE in reason else reason, []).append(part)
    return found
