"""Which features fire on which biological concepts, beside detectors that need no autoencoder."""

from __future__ import annotations

import numpy as np
import pandas as pd

from helix_sae.figures.metagene import from_tables, metagene
from helix_sae.names import feature_name
from helix_sae.reporting.document import (
    Block,
    Column,
    Prose,
    ReportTable,
    Section,
    Statement,
    Tile,
    is_empty,
    not_run,
    picture,
    truth,
)
from helix_sae.reporting.wording import MISSING, count, fixed, listing, probability, words

KEY, TITLE = "concepts", "Concepts, nucleotide by nucleotide"

SAE = "sae"
MARGIN = 0.02
"""Differences of F1 below this are called equal."""
UNITS = ("neurons", "pca")
"""Kinds that read the same activations as the features."""
RANDOM = "random_model"


def concept_section(
    matches: pd.DataFrame | None,
    baselines: pd.DataFrame | None,
    warnings: pd.DataFrame | None = None,
    profiles: pd.DataFrame | None = None,
) -> Section:
    """Best F1 of every concept by features and by each kind of baseline, on validation clusters.

    Parameters
    ----------
    matches : DataFrame or None
        ``site, feature, concept, f1, precision, recall, null_f1_95, p_value, ...``
        (:func:`helix_sae.statistics.concept_matching.match_concepts`).
    baselines : DataFrame or None
        ``concept, kind, site, feature, discovery_f1, f1, ...`` of the best detector of each kind; SAE
        features are the kind ``sae``.
    warnings : DataFrame or None
        ``concept, warning, detail`` of concepts left out.
    profiles : DataFrame or None
        ``landmark, site, feature, name, position, mean, standard_error, n_sequences``.
    """
    if matches is None or matches.empty or baselines is None or baselines.empty:
        return not_run(KEY, TITLE, "Features were not matched with concepts.")
    best = compare_kinds(matches, baselines)
    ahead = best[best["f1"] > best["rival_f1"] + MARGIN]
    behind = best[best["rival_f1"] > best["f1"] + MARGIN]
    statements = [_best(best), _against_rivals(best, ahead, behind), *_beyond_the_input(baselines)]
    left_out = _left_out(warnings)
    return Section(
        KEY,
        TITLE,
        [*statements, *left_out],
        _blocks(best, baselines, profiles),
        {
            "n_concepts": len(best),
            "n_ahead_of_baselines": len(ahead),
            "n_behind_baselines": len(behind),
            "passing": _passing(baselines, SAE),
            "passing_with_random_weights": _passing(baselines, RANDOM),
            "best": best,
            "not_matched": [] if warnings is None else warnings,
        },
        [
            Tile(
                "Best concept",
                f"F1 {fixed(float(best['f1'].max()))}",
                words(str(best.loc[best["f1"].idxmax(), "concept"])),
            )
        ],
    )


def compare_kinds(matches: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """One row a concept: the best SAE feature (chosen on discovery) and the best neuron or component.

    Returns
    -------
    DataFrame
        ``concept, site, feature, f1, precision, recall, null_f1_95, p_value, rival, rival_f1``, best first.
    """
    own = baselines[baselines["kind"] == SAE][["concept", "site", "feature", "f1"]].astype(
        {"feature": "int64"}
    )
    details = matches[["concept", "site", "feature", "precision", "recall", "null_f1_95", "p_value"]]
    table = own.merge(
        details.astype({"feature": "int64"}).drop_duplicates(["concept", "site", "feature"]),
        on=["concept", "site", "feature"],
        how="left",
    )
    others = baselines[baselines["kind"].isin(UNITS)].sort_values("f1", ascending=False, kind="stable")
    rivals = others.drop_duplicates("concept")[["concept", "kind", "f1"]]
    table = table.merge(rivals.rename(columns={"kind": "rival", "f1": "rival_f1"}), on="concept", how="left")
    return table.sort_values("f1", ascending=False, kind="stable", ignore_index=True)


def _best(best: pd.DataFrame) -> Statement:
    named = [
        f"{words(str(row['concept']))} {fixed(row['f1'])} ({feature_name(str(row['site']), row['feature'])})"
        for row in best.head(4).to_dict("records")
    ]
    return Statement(f"Best F1 on held-out families: {listing(named)}.", headline=True)


def _against_rivals(best: pd.DataFrame, ahead: pd.DataFrame, behind: pd.DataFrame) -> Statement:
    compared = best[best["rival_f1"].notna()]
    if compared.empty:
        return Statement("No other detectors were compared.", "absent")
    equal = len(compared) - len(ahead) - len(behind)
    text = (
        f"Of {count(len(compared), 'concept')}, a single SAE feature detects {len(ahead)} better than the"
        f" best neuron or principal component, {equal} about as well (within {fixed(MARGIN)}), and"
        f" {len(behind)} worse."
    )
    if len(ahead) <= len(behind):
        text += " For reading concepts off single units, the features are no better than these."
    return Statement(text, "finding" if len(ahead) > len(behind) else "weak", headline=True)


def _passing(baselines: pd.DataFrame, kind: str) -> list[str]:
    """Concepts for which the best detector of a kind passes; none where that was not judged."""
    if "passes" not in baselines:
        return []
    return [
        str(c) for c in baselines.loc[(baselines["kind"] == kind) & truth(baselines["passes"]), "concept"]
    ]


def _beyond_the_input(baselines: pd.DataFrame) -> list[Statement]:
    """What is detected that cannot be read off letters, position and markers; and by how much of it training is needed."""
    if "passes" not in baselines:
        return []
    own = _passing(baselines, SAE)
    said = listing([words(c) for c in own]) if own else "none"
    statements = [
        Statement(
            "Beyond what k-mers, the position and codon markers in the input give away (F1 of at least 0.5,"
            f" and 0.05 more than any of these), features detect {count(len(own), 'concept')}: {said}.",
            "finding" if own else "weak",
            headline=True,
        )
    ]
    if (baselines["kind"] == RANDOM).any():
        untrained = _passing(baselines, RANDOM)
        what = listing([words(c) for c in untrained]) if untrained else "none"
        statements.append(
            Statement(
                f"With random weights, the same architecture and procedure detect in this sense: {what}."
            )
        )
    return statements


def _left_out(warnings: pd.DataFrame | None) -> list[Statement]:
    if warnings is None or warnings.empty:
        return []
    names = sorted({words(str(c)) for c in warnings["concept"]})
    shown = listing(names) if len(names) <= 12 else f"{', '.join(names[:12])} and {len(names) - 12} more"
    return [Statement(f"Too rare in these sequences to be matched: {shown}.", "absent")]


def _blocks(best: pd.DataFrame, baselines: pd.DataFrame, profiles: pd.DataFrame | None) -> list[Block]:
    passing = set(_passing(baselines, SAE))
    kinds = [str(k) for k in dict.fromkeys(baselines["kind"]) if k != SAE]
    f1 = baselines.drop_duplicates(["concept", "kind"]).pivot_table(
        index="concept", columns="kind", values="f1"
    )
    rows = [
        [
            words(str(row["concept"])),
            feature_name(str(row["site"]), row["feature"]),
            fixed(row["f1"]),
            fixed(row["precision"]),
            fixed(row["recall"]),
            *(_cell(f1, str(row["concept"]), kind) for kind in kinds),
            "yes" if str(row["concept"]) in passing else "",
            fixed(row["null_f1_95"]),
            probability(row["p_value"]),
        ]
        for row in best.to_dict("records")
    ]
    blocks: list[Block] = [
        Prose(
            "Precision is counted per nucleotide; recall per nucleotide for regions and codons, per instance"
            " for elements. Threshold and detector were chosen on the discovery families. Shifted: the F1"
            " that 95 % of circular shifts of the labels within their region stay below. Passes: above these,"
            " and beyond what the k-mers of the input, the position and the codon markers give away."
        ),
        ReportTable(
            "The best SAE feature for each concept, and the F1 of the best detector of every other kind.",
            [
                Column("Concept"),
                Column("Feature", "code"),
                Column("F1", "number"),
                Column("Precision", "number"),
                Column("Recall", "number"),
                *(Column(_heading(kind), "number") for kind in kinds),
                Column("Passes"),
                Column("Shifted", "number"),
                Column("p", "number"),
            ],
            rows,
        ),
    ]
    if profiles is not None and not is_empty(profiles):
        blocks.append(
            picture(
                "figure-metagene",
                "Activation around start and stop codon",
                "Mean activation by position; codons of the coding region are shaded by turns.",
                metagene(*from_tables(profiles)),
            )
        )
    return blocks


def _heading(kind: str) -> str:
    return {"neurons": "Neuron", "pca": "PCA", "random_model": "Random weights"}.get(
        kind, kind.replace("_", " ")
    )


def _cell(f1: pd.DataFrame, concept: str, kind: str) -> str:
    if concept not in f1.index or kind not in f1.columns:
        return MISSING
    return fixed(float(np.asarray(f1.loc[concept, kind], dtype=float)))
