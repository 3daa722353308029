"""Sets of features: how much of the prediction they carry, where, and whether other directions do as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from helix_sae.figures.causal_curves import baseline_curves, dictionary_label, intervention_curves
from helix_sae.figures.causal_effects import block_comparison
from helix_sae.figures.style import site_label
from helix_sae.reporting import drawings
from helix_sae.reporting.document import (
    Block,
    Column,
    Prose,
    ReportTable,
    Section,
    Statement,
    Tile,
    not_run,
    picture,
)
from helix_sae.reporting.wording import MISSING, count, fixed, interval, listing, number, percent, signed

KEY, TITLE = "comparisons", "Sets of features, blocks and baselines"

SAE = "sae"
CEILING = "das"
"""The supervised subspace, which is told what to look for: not a rival but what can be reached at all."""
LOW_CEILING = 0.5
"""Share of the difference that all features together recover, below which the report warns."""


class ComparisonInputs(NamedTuple):
    """Tables of the cumulative interventions; None or empty where they were not run.

    Attributes
    ----------
    curves : DataFrame or None
        ``dictionary, ranking, curve, k, share, faithfulness, low, high``, ``edit_magnitude``,
        ``n_pairs, n_clusters``.
    baselines : DataFrame or None
        ``dictionary, ranking, n_nodes, cpr, cmd, log_area`` and ``lead`` with ``*_low, *_high``;
        ``k_at_level, level, reached``. The first row is the reference.
    ceilings : DataFrame or None
        ``site, nodes, recovered, low, high, divergence, edit_magnitude``.
    blocks : DataFrame or None
        ``site, share, effective_features, n_nodes, recovered*, recovered_with_error*``.
    """

    curves: pd.DataFrame | None
    baselines: pd.DataFrame | None
    ceilings: pd.DataFrame | None = None
    blocks: pd.DataFrame | None = None


def comparison_section(given: ComparisonInputs) -> Section:
    """Ceilings, cumulative curves and the verdict on the baselines.

    Parameters
    ----------
    given : ComparisonInputs
    """
    if given.baselines is None or given.baselines.empty or given.curves is None or given.curves.empty:
        return not_run(KEY, TITLE, "No cumulative interventions were run, and no baselines compared.")
    reference = given.baselines.iloc[0]
    verdicts = judge(given.baselines)
    ceiling, ceiling_statements = _ceilings(given.ceilings)
    statements = [
        *ceiling_statements,
        _cumulative(reference, given.curves),
        *_verdict_statements(verdicts),
        *_blocks_in_words(given.blocks),
    ]
    others = [v for v in verdicts if v["dictionary"] not in (SAE, CEILING)]
    better = [v for v in others if v["verdict"] == "better"]
    return Section(
        KEY,
        TITLE,
        statements,
        _section_blocks(given, verdicts),
        {
            "reference": {str(k): v for k, v in reference.items()},
            "baselines": given.baselines,
            "verdicts": verdicts,
            "ceilings": [] if given.ceilings is None else given.ceilings,
            "blocks": [] if given.blocks is None else given.blocks,
        },
        [
            Tile(
                "Better than baselines",
                f"{len(better)} of {len(others)}",
                "with equally many features",
                weak=len(better) < len(others),
            )
        ],
        (
            [
                f"All features together recover {percent(ceiling)} of the difference between the predictions:"
                " most of it goes past these sites or lies in the reconstruction error."
            ]
            if ceiling is not None and ceiling < LOW_CEILING
            else []
        ),
    )


def judge(baselines: pd.DataFrame) -> list[dict[str, Any]]:
    """Whether the reference, the first row, beats each of the others.

    Returns
    -------
    list of dict
        ``dictionary, ranking, label, lead, lead_low, lead_high`` and ``verdict``: ``better`` or ``worse``
        when the interval of the lead excludes zero, else ``no better``; ``unknown`` without an interval.
    """
    verdicts: list[dict[str, Any]] = []
    for row in baselines.iloc[1:].to_dict("records"):
        low, high = float(row["lead_low"]), float(row["lead_high"])
        if not (np.isfinite(low) and np.isfinite(high)):
            word = "unknown"
        else:
            word = "better" if low > 0 else "worse" if high < 0 else "no better"
        verdicts.append(
            {
                "dictionary": str(row["dictionary"]),
                "ranking": str(row["ranking"]),
                "label": dictionary_label(str(row["dictionary"]), str(row["ranking"])),
                "lead": float(row["lead"]),
                "lead_low": low,
                "lead_high": high,
                "verdict": word,
            }
        )
    return verdicts


def _verdict_statements(verdicts: Sequence[dict[str, Any]]) -> list[Statement]:
    """First the other dictionaries, then the ceiling, then the reference with other rankings."""
    statements = rivals_in_words(verdicts)
    own = [v for v in verdicts if v["dictionary"] == SAE]
    for v in own:
        verdict = {
            "better": "is worth it: it does better than",
            "worse": "does worse than",
            "no better": "is no better than",
        }.get(v["verdict"], "cannot be told apart from")
        how = _RANKED_BY.get(v["ranking"], f"ranking by {v['ranking']}")
        statements.append(
            Statement(
                f"Ranking the features by their exact effect on discovery pairs {verdict} {how} "
                f"(lead {signed(v['lead'], 3)} {interval(v['lead_low'], v['lead_high'], 3)}).",
                "finding" if v["verdict"] == "better" else "weak",
            )
        )
    return statements


def rivals_in_words(verdicts: Sequence[dict[str, Any]]) -> list[Statement]:
    """Whether the features beat the other dictionaries, and how far the supervised ceiling is.

    Parameters
    ----------
    verdicts : sequence of dict
        Of :func:`judge`.
    """
    statements: list[Statement] = []
    others = [v for v in verdicts if v["dictionary"] not in (SAE, CEILING)]
    if others:
        beaten, worse = _with(others, "better"), _with(others, "worse")
        level, unknown = _with(others, "no better"), _with(others, "unknown")
        parts: list[str] = []
        if beaten:
            parts.append(f"come closer to the full effect than {listing(beaten)}")
        if level:
            parts.append(f"are no better than {listing(level)}")
        if worse:
            parts.append(f"come less close to it than {listing(worse)}")
        if unknown:
            parts.append(f"cannot be told apart from {listing(unknown)} for want of families")
        statements.append(
            Statement(
                "With equally many features and the same budget for ranking them, SAE features"
                f" {listing(parts)}.",
                "finding" if len(beaten) == len(others) else "weak",
                headline=True,
            )
        )
    statements += [_ceiling_of_choice(v) for v in verdicts if v["dictionary"] == CEILING]
    return statements


_RANKED_BY = {
    "random": "a random order",
    "difference": "ranking by the size of the differences",
    "atp": "ranking by the gradient's estimate alone",
    "masks": "ranking by learnt masks",
}


def _ceiling_of_choice(v: dict[str, Any]) -> Statement:
    """How far the features are from directions that were trained on the read-out."""
    gap = f"lead {signed(v['lead'])} {interval(v['lead_low'], v['lead_high'])}"
    words = {
        "worse": (
            f"As many directions of a supervised subspace, the ceiling of any choice, come closer ({gap})."
        ),
        "no better": (
            f"They are not told apart from a supervised subspace, the ceiling of any choice ({gap})."
        ),
        "better": (
            f"They do better than a supervised subspace trained on the same pairs ({gap}): it generalises"
            " less."
        ),
    }
    return Statement(
        words.get(v["verdict"], "Too few families to say how far a supervised subspace is ahead."),
        "finding" if v["verdict"] in ("no better", "better") else "weak",
        headline=True,
    )


def _with(verdicts: Sequence[dict[str, Any]], word: str) -> list[str]:
    return [
        f"{v['label']} (lead {signed(v['lead'])} {interval(v['lead_low'], v['lead_high'])})"
        for v in verdicts
        if v["verdict"] == word
    ]


def _cumulative(reference: pd.Series, curves: pd.DataFrame) -> Statement:
    level, k = float(reference["level"]), reference["k_at_level"]
    reached = float(reference["reached"])
    n_pairs = int(curves["n_pairs"].iloc[0])
    text = (
        f"On {count(n_pairs, 'held-out pair')}, SAE features score CPR {fixed(reference['cpr'])} "
        f"{interval(reference['cpr_low'], reference['cpr_high'])} and CMD {fixed(reference['cmd'])} "
        f"{interval(reference['cmd_low'], reference['cmd_high'])}; "
    )
    if pd.isna(k):
        text += (
            f"no number of them reaches a faithfulness of {percent(level)} "
            f"(all {int(reference['n_nodes']):,} together: {percent(reached)})."
        )
        return Statement(text, "weak", headline=True)
    text += f"{int(k):,} of {int(reference['n_nodes']):,} reach a faithfulness of {percent(level)}."
    return Statement(text, headline=True)


def _ceilings(ceilings: pd.DataFrame | None) -> tuple[float | None, list[Statement]]:
    """What all features of all sites recover, and the statement about it."""
    if ceilings is None or ceilings.empty:
        return None, [Statement("What can be recovered at all was not measured.", "absent")]

    def row(site: str, nodes: str) -> pd.Series | None:
        found = ceilings[(ceilings["site"] == site) & (ceilings["nodes"] == nodes)]
        return None if found.empty else found.iloc[0]

    whole, with_error = row("all", "features"), row("all", "features and error")
    if whole is None:
        return None, []
    recovered = float(whole["recovered"])
    text = (
        f"Patching every feature of all sites at once recovers {percent(recovered)}"
        f" {interval(100 * float(whole['low']), 100 * float(whole['high']), 0)} of the difference between the"
        " two predictions"
    )
    if with_error is not None:
        text += f", and {percent(float(with_error['recovered']))} with the reconstruction errors"
    single = ceilings[(ceilings["site"] != "all") & (ceilings["nodes"] == "features")]
    if len(single):
        best = single.loc[single["recovered"].idxmax()]
        text += (
            f"; the best single site, {site_label(str(best['site']))}, {percent(float(best['recovered']))}"
        )
    return recovered, [Statement(text + ".", "weak" if recovered < LOW_CEILING else "finding", headline=True)]


def _blocks_in_words(blocks: pd.DataFrame | None) -> list[Statement]:
    if blocks is None or blocks.empty or blocks["share"].isna().all():
        return []
    best = blocks.loc[blocks["share"].idxmax()]
    return [
        Statement(
            f"{percent(float(best['share']))} of the features' total effect is at"
            f" {site_label(str(best['site']))}, spread over about"
            f" {number(float(best['effective_features']), 2)} features."
        )
    ]


def _section_blocks(given: ComparisonInputs, verdicts: Sequence[dict[str, Any]]) -> list[Block]:
    curves: Any = given.curves
    baselines: Any = given.baselines
    made: list[Block] = [
        Prose(
            "Faithfulness is the share of the full effect of these sites that a set of features brings about,"
            " as a ratio of sums over pairs. CPR is the area under it against the share of nodes, CMD the"
            " area of its distance from 1; both depend on the size of a dictionary. The lead compares equally"
            " many nodes by their mean closeness 1 − |1 − F|, in which overshooting counts like falling"
            " short, on the same resampled families."
        ),
        _baseline_table(baselines, verdicts),
        picture(
            "figure-baselines",
            "Are the features better than other directions?",
            "Left, the share of the difference recovered by the best k nodes of each dictionary. Right, how"
            " far the SAE features lead each of the others, with the 95 % interval.",
            baseline_curves(curves, baselines),
        ),
        picture(
            "figure-curves",
            "Cumulative interventions",
            "Sufficiency: the k best features patched into the source. Necessity: everything patched but the"
            " k best.",
            intervention_curves(
                curves, ranking=str(baselines["ranking"].iloc[0]), level=float(baselines["level"].iloc[0])
            ),
        ),
    ]
    if given.ceilings is not None and len(given.ceilings):
        made.append(_ceiling_table(given.ceilings))
    if given.blocks is not None and len(given.blocks):
        made.append(
            picture(
                "figure-blocks",
                "The blocks compared",
                "What each site can recover alone, its share of the features' effect, and over how many"
                " features that is spread.",
                block_comparison(given.blocks),
            )
        )
    return made


def _baseline_table(baselines: pd.DataFrame, verdicts: Sequence[dict[str, Any]]) -> ReportTable:
    leads = baselines.iloc[1:]
    drawn = [
        None,
        *drawings.whiskers(leads["lead"].tolist(), leads["lead_low"].tolist(), leads["lead_high"].tolist()),
    ]
    words = ["reference", *(str(v["verdict"]) for v in verdicts)]
    rows = [
        [
            dictionary_label(str(row["dictionary"]), str(row["ranking"])),
            f"{int(row['n_nodes']):,}",
            number(row["passes"]) if "passes" in row else MISSING,
            f"{fixed(row['cpr'])} {interval(row['cpr_low'], row['cpr_high'])}",
            f"{fixed(row['cmd'])} {interval(row['cmd_low'], row['cmd_high'])}",
            MISSING if pd.isna(row["k_at_level"]) else f"{int(row['k_at_level']):,}",
            fixed(row["log_area"]),
            whisker,
            MISSING if i == 0 else f"{signed(row['lead'])} {interval(row['lead_low'], row['lead_high'])}",
            word,
        ]
        for i, (row, whisker, word) in enumerate(zip(baselines.to_dict("records"), drawn, words, strict=True))
    ]
    level = percent(float(baselines["level"].iloc[0]))
    return ReportTable(
        "SAE features and the baselines through the same machinery, ranked on discovery and run on validation"
        " pairs. Passes: runs of a sequence that the choice took for each pair, a backward run counted as"
        " two. The last column says how SAE features do against each.",
        [
            Column("Dictionary"),
            Column("Nodes", "number"),
            Column("Passes", "number"),
            Column("CPR", "number"),
            Column("CMD", "number"),
            Column(f"k at {level}", "number"),
            Column("Mean closeness", "number"),
            Column("Lead of SAE", "whisker"),
            Column("", "number"),
            Column("SAE is"),
        ],
        rows,
    )


def _ceiling_table(ceilings: pd.DataFrame) -> ReportTable:
    rows = [
        [
            str(row["site"]),
            str(row["nodes"]),
            percent(row["recovered"]),
            interval(100 * row["low"], 100 * row["high"], 0),
            number(row["divergence"]),
        ]
        for row in ceilings.to_dict("records")
    ]
    return ReportTable(
        "Ceilings: the share of the difference between the two predictions that patching everything"
        " recovers.",
        [
            Column("Site", "code"),
            Column("Patched"),
            Column("Recovered", "number"),
            Column("95 % interval", "number"),
            Column("Divergence left (nats)", "number"),
        ],
        rows,
    )
