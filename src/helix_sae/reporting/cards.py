"""The card of a feature: what is written on it, as blocks that the page draws (``templates/atlas.js``).

A block is a list that begins with its kind:

``["h3", text]``, ``["p", text]``, ``["small", text]``, ``["absent", text]``
    Heading, paragraphs.
``["bars", heights]``
    A histogram.
``["logo", heights]``
    A sequence logo: hundredths of bits of A, C, G and U at each place.
``["facts", rows]``
    Pairs of a term and its value.
``["table", name, titles, kinds, rows]``
    Cells by the kind of their column: ``text``, ``number`` (text as well), ``yes`` (true, false or null),
    ``whisker`` (low, estimate, high, zero and whether it is hollow; or null).
``["nearest", rows]``
    Name, anchor (null without a card) and cosine of other features.
``["windows", caption, titles, rows]``
    Label, missing places, letters, shades, tracks, activation, place, target and record of each window.
"""

from __future__ import annotations

from typing import Any

from helix_sae.figures.style import property_label
from helix_sae.reporting import wording
from helix_sae.reporting.atlas import FeaturePage, ShownWindow
from helix_sae.reporting.drawings import Whisker
from helix_sae.reporting.wording import MISSING, count, fixed, interval, percent, probability, signed, words

Block = list[Any]

_STRONGEST = "Strongest activations, each in another family."
_SAMPLED = (
    "One activation drawn at random from each band of its distribution: what the feature does when it is not"
    " at its strongest."
)


def card(page: FeaturePage, target: str | None = None) -> dict[str, Any]:
    """One feature's card: ``lead``, and the blocks ``left``, ``right`` and ``below`` them.

    Parameters
    ----------
    page : FeaturePage
    target : str, optional
        Column of the mRNA table whose value stands beside each window.
    """
    title = property_label(target) if target else ""
    tables = ((page.top, "Rank", _STRONGEST), (page.sampled, "Quantile", _SAMPLED))
    return {
        "lead": f"Chosen for its {page.chosen_for}: {page.reason}." if page.reason else "",
        "left": [*_activation(page), *_logo(page)],
        "right": [
            *_stability(page),
            *_effect(page),
            *_causes(page),
            *_associations(page),
            *_concepts(page),
            *_nearest(page),
        ],
        "below": [
            ["windows", caption, [first, title], [_window(row) for row in rows]]
            for rows, first, caption in tables
            if rows
        ],
    }


def _activation(page: FeaturePage) -> list[Block]:
    heading: Block = ["h3", "Activation"]
    if not page.n_active:
        only = "; it fires on codon markers only" if page.marker_share == page.marker_share else ""
        return [heading, ["absent", f"The feature is active at no nucleotide of these sequences{only}."]]
    where = f"({page.n_active:,}) in {count(page.n_sequences, 'sequence')}"
    text = (
        f"Activations from 0 to {wording.number(page.maximum)}; the height goes with the logarithm of the"
        f" count. Active at {percent(page.density, 2)} of nucleotides {where}; median when active"
        f" {wording.number(page.median)}."
    )
    if page.marker_share > 0.005:
        text += f" {percent(page.marker_share)} of its active tokens are codon markers, which are not shown."
    return [heading, ["bars", page.bars], ["small", text]]


def _logo(page: FeaturePage) -> list[Block]:
    if page.logo is None:
        return []
    return [
        ["h3", "Letters around its strongest activations"],
        ["logo", [[round(100 * bits) for bits in row] for row in page.logo.tolist()]],
        [
            "small",
            f"Information against the background composition, {count(page.n_logo, 'activation')} of at least"
            " half the maximum, one a family. Yellow: the nucleotide that fires. Grey: to its right, unseen"
            " by the model at that point.",
        ],
    ]


def _stability(page: FeaturePage) -> list[Block]:
    heading: Block = ["h3", "Stability over seeds"]
    known = page.stability
    if not known["n_others"]:
        return [
            heading,
            [
                "absent",
                "Stability unknown: no other seed was trained, so nothing says that another training would "
                "find this feature.",
            ],
        ]
    certified = {"yes": "yes", "no": "no: another training may not find it"}
    seeds = f"in {known['n_back']} of {count(known['n_others'], 'seed')}"
    alike = (
        f"cosine {fixed(known['best_cosine'])}, correlation on held-out tokens {fixed(known['correlation'])}"
    )
    return [
        heading,
        [
            "facts",
            [
                ["Comes back", f"{seeds} {interval(known['stability_low'], known['stability_high'])}"],
                ["Most alike feature", alike],
                ["Certified", certified.get(known["certified"], "unknown: fewer than four other seeds")],
            ],
        ],
    ]


def _effect(page: FeaturePage) -> list[Block]:
    heading: Block = ["h3", "Causal effect"]
    effect = page.effect
    if effect is None:
        return [
            heading,
            [
                "absent",
                "No intervention on this feature: it differs in none of the pairs, or the causal analysis "
                "was not run.",
            ],
        ]
    size = f"{signed(effect['estimate'], 3)} {interval(effect['low'], effect['high'], 3)}"
    families = f"{count(effect['n_pairs'], 'pair')} of {count(effect['n_clusters'], 'family', 'families')}"
    tested = "not among the features tested"
    if effect["tested"]:
        tested = f"q = {probability(effect['q_value'])}, {'' if effect['confirmed'] else 'not '}confirmed"
    facts = [
        ["On the prediction", size],
        ["Measured on", f"{families} in which it differs, {effect['side']}"],
        ["Held-out test", tested],
    ]
    if effect["in_circuit"] is not None:
        facts.append(["In the circuit", "yes" if effect["in_circuit"] else "no"])
    return [heading, ["facts", facts]]


def _causes(page: FeaturePage) -> list[Block]:
    if not page.causes:
        return []
    told = "; ".join(
        f"{words(row['kind'])}{' (a decoy)' if row['role'] == 'decoy' else ''} {signed(row['effect'], 3)} "
        f"{interval(row['low'], row['high'], 3)}, q = {probability(row['q_value'])}"
        for row in page.causes
    )
    return [
        ["h3", "Causes"],
        ["small", f"By itself it moves the prediction, more than the sham does, for {told}."],
    ]


def _associations(page: FeaturePage) -> list[Block]:
    heading: Block = ["h3", "Associations"]
    if not page.associations:
        return [heading, ["absent", "None is significant."]]
    titles = ["Property", "On validation families, drawn", "On validation families", "q", "Replicated"]
    rows = [
        [
            property_label(str(row["property"])),
            _whisker(row["whisker"], hollow=str(row["replicated"]) != "True"),
            signed(row["validation_effect"]),
            probability(row["q_value"]),
            None if row["replicated"] is None else str(row["replicated"]) == "True",
        ]
        for row in page.associations
    ]
    return [heading, ["table", "Associations", titles, ["text", "whisker", "number", "number", "yes"], rows]]


def _whisker(whisker: Whisker | None, *, hollow: bool) -> list[Any] | None:
    return None if whisker is None else [*whisker, hollow]


def _concepts(page: FeaturePage) -> list[Block]:
    heading: Block = ["h3", "Concepts"]
    if not page.concepts:
        return [heading, ["absent", "It is the leading feature of no concept."]]
    rows = [
        [
            words(row["concept"]),
            *(fixed(row[name]) for name in ("f1", "precision", "recall")),
            MISSING if row["rival"][0] is None else f"{words(row['rival'][0])} {fixed(row['rival'][1])}",
        ]
        for row in page.concepts
    ]
    titles = ["Concept", "F1", "Precision", "Recall", "Best other detector"]
    return [heading, ["table", "Concepts", titles, ["text", "number", "number", "number", "text"], rows]]


def _nearest(page: FeaturePage) -> list[Block]:
    if not page.nearest:
        return []
    rows = [[other["name"], other["anchor"], fixed(other["cosine"])] for other in page.nearest]
    return [
        ["h3", "Nearest features"],
        ["small", "By cosine of the decoder directions, at the same site:"],
        ["nearest", rows],
    ]


def _window(row: ShownWindow) -> list[Any]:
    text = [row.letters, row.shades, row.tracks, wording.number(row.peak), row.place, row.value]
    return [row.label, row.missing, *text, row.sequence_id]
