"""The circuit that ACDC leaves over."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from helix_sae.figures.causal_curves import acdc_curves, circuit_quality
from helix_sae.names import feature_name
from helix_sae.reporting.document import (
    Block,
    Column,
    Prose,
    ReportTable,
    Section,
    Statement,
    not_run,
    picture,
)
from helix_sae.reporting.wording import (
    MISSING,
    count,
    fixed,
    interval,
    listing,
    number,
    percent,
    setting,
    signed,
)

KEY, TITLE = "circuit", "The circuit (ACDC)"

BY_ATTRIBUTION = "attribution"
UNSTABLE = 0.5
"""Mean overlap of circuits found in different visiting orders, below which the circuit is called
order-dependent."""
FAITHFUL = 0.8
"""Share of the difference at which a circuit is called faithful."""
IDLE = 0.01
"""Share of a circuit's gain below which a node adds next to nothing."""
_N_MEMBERS = 15


def circuit_section(
    circuit: pd.DataFrame | None,
    steps: pd.DataFrame | None,
    quality: pd.DataFrame | None = None,
    contributions: pd.DataFrame | None = None,
) -> Section:
    """Sizes of the nested circuits, what they leave unexplained, and how much depends on the visiting order.

    Parameters
    ----------
    circuit : DataFrame or None
        ``site, feature, attribution, order, tau``: the largest threshold that a node survived (missing:
        none).
    steps : DataFrame or None
        ``order, tau, step, site, n_removed, n_nodes, divergence, edit_magnitude, screening``, and
        ``starts_from``.
    quality : DataFrame or None
        Of :func:`helix_sae.causal.curves.circuit_quality`: the circuits on held-out pairs.
    contributions : DataFrame or None
        ``site, feature, contribution, tau``: what each node adds to the circuit of one threshold.
    """
    if circuit is None or circuit.empty or steps is None or steps.empty:
        return not_run(KEY, TITLE, "No circuit was searched for.")
    sizes = circuit_sizes(circuit, steps)
    overlap = order_overlap(circuit)
    chosen = _middle(sizes)
    tau = float(sizes["tau"].iloc[chosen])
    members = members_at(circuit, tau)
    statements = [
        _sizes(sizes),
        *_held_out(quality),
        *_members(members, tau),
        *_idle(contributions),
        *_orders(overlap),
    ]
    if str(steps["screening"].iloc[0]) != "none":
        statements.append(
            Statement(
                "Nodes were tried in groups first; that is a screening, stricter than one node at a time."
            )
        )
    if "starts_from" in steps and str(steps["starts_from"].iloc[0]) != "all nodes":
        begun = int(steps["n_nodes"].max())
        statements.append(
            Statement(
                f"The search began with the {begun:,} nodes of largest effect, not with all: a screening."
            )
        )
    return Section(
        KEY,
        TITLE,
        statements,
        [*_blocks(sizes, members, steps, tau), *_quality_blocks(quality, contributions)],
        {
            "sizes": sizes,
            "tau_shown": tau,
            "members": members,
            "overlap_between_orders": overlap,
            "on_held_out_pairs": [] if quality is None else quality,
            "contributions": [] if contributions is None else contributions,
            "screening": str(steps["screening"].iloc[0]),
        },
    )


def members_at(circuit: pd.DataFrame, tau: float, order: str = BY_ATTRIBUTION) -> pd.DataFrame:
    """Nodes that survive a threshold, most important first: ``site, feature, attribution``."""
    chosen = circuit[(circuit["order"] == order) & (circuit["tau"] >= tau)]
    ranked = chosen["attribution"].abs().sort_values(ascending=False, kind="stable").index
    return chosen.loc[ranked, ["site", "feature", "attribution"]].reset_index(drop=True)


def surviving_members(circuit: pd.DataFrame) -> pd.DataFrame:
    """Members of the circuit that the report shows; empty when none was searched for."""
    if circuit.empty or circuit["tau"].isna().all():
        return circuit.iloc[:0]
    own = circuit[circuit["order"] == BY_ATTRIBUTION]
    return members_at(circuit, float(own["tau"].max()))


def circuit_sizes(circuit: pd.DataFrame, steps: pd.DataFrame, order: str = BY_ATTRIBUTION) -> pd.DataFrame:
    """One row a threshold: ``tau, n_nodes, n_errors, divergence, edit_magnitude`` after its pruning."""
    rows: list[dict[str, Any]] = []
    own = steps[steps["order"] == order]
    for tau, part in own.groupby("tau", sort=True):
        last = part.sort_values("step").iloc[-1]
        members = members_at(circuit, float(tau), order)  # type: ignore[arg-type]
        rows.append(
            {
                "tau": float(tau),  # type: ignore[arg-type]
                "n_nodes": len(members),
                "n_errors": int((members["feature"].astype(str) == "error").sum()),
                "divergence": float(last["divergence"]),
                "edit_magnitude": float(last["edit_magnitude"]),
            }
        )
    return pd.DataFrame(rows)


def order_overlap(circuit: pd.DataFrame) -> pd.DataFrame:
    """Mean Jaccard overlap of the circuits of all pairs of visiting orders, by threshold: ``tau, jaccard, n_orders``."""
    orders = [str(o) for o in circuit["order"].unique()]
    rows: list[dict[str, Any]] = []
    for tau in sorted(circuit["tau"].dropna().unique()):
        sets = [
            set(
                members_at(circuit, float(tau), o)[["site", "feature"]]
                .astype(str)
                .itertuples(index=False, name=None)
            )
            for o in orders
        ]
        shares = [len(a & b) / len(a | b) for a, b in combinations(sets, 2) if a | b]
        mean = float(np.mean(shares)) if shares else float("nan")
        rows.append({"tau": float(tau), "jaccard": mean, "n_orders": len(orders)})
    return pd.DataFrame(rows, columns=["tau", "jaccard", "n_orders"])


def _middle(sizes: pd.DataFrame) -> int:
    """The threshold whose circuit is shown: the smallest circuit that still has a node, or the last one."""
    alive = np.flatnonzero(sizes["n_nodes"].to_numpy() > 0)
    return int(alive[-1]) if len(alive) else len(sizes) - 1


def _sizes(sizes: pd.DataFrame) -> Statement:
    first, last = sizes.iloc[0], sizes.iloc[-1]
    text = (
        f"Pruning every node whose removal costs less than τ leaves {count(int(first['n_nodes']), 'node')} at"
        f" τ = {setting(first['tau'])} (divergence from the target {number(first['divergence'])} nats)"
    )
    if len(sizes) > 1:
        text += (
            f" and {int(last['n_nodes'])} at τ = {setting(last['tau'])} ({number(last['divergence'])} nats)"
        )
    return Statement(text + ".", "finding" if int(first["n_nodes"]) else "weak", headline=True)


def _held_out(quality: pd.DataFrame | None) -> list[Statement]:
    """Faithfulness and completeness of the smallest circuit that is still faithful, or of the largest one."""
    if quality is None or quality.empty:
        return [Statement("The circuits were not judged on held-out pairs.", "absent")]
    rows = quality.sort_values("n_nodes")
    faithful = rows[rows["faithfulness"] >= FAITHFUL]
    row = {str(k): v for k, v in (faithful.iloc[0] if len(faithful) else rows.iloc[-1]).items()}
    better = float(row["faithfulness_low"]) > float(row["random_high"])
    text = (
        f"On {count(int(row['n_pairs']), 'held-out pair')} the {count(int(row['n_nodes']), 'node')} that"
        f" survive τ = {setting(row['tau'])} recover {percent(row['faithfulness'])}"
        f" {interval(100 * row['faithfulness_low'], 100 * row['faithfulness_high'], 0)} of the difference, as"
        f" many random nodes {percent(row['random'])}"
        f" {interval(100 * row['random_low'], 100 * row['random_high'], 0)}{_by_masks(row)}, and everything"
        f" but the circuit {percent(row['completeness'])}"
        f" {interval(100 * row['completeness_low'], 100 * row['completeness_high'], 0)}."
    )
    if not better:
        text += " The circuit is not clearly better than random nodes."
    return [Statement(text, "finding" if better and len(faithful) else "weak", headline=True)]


def _by_masks(row: dict[str, Any]) -> str:
    """What as many features by learnt masks recover, where they were learnt."""
    if "masks" not in row:
        return ""
    span = interval(100 * row["masks_low"], 100 * row["masks_high"], 0)
    return f", as many features by learnt masks {percent(row['masks'])} {span}"


def _idle(contributions: pd.DataFrame | None) -> list[Statement]:
    """How many nodes of the circuit add next to nothing."""
    if contributions is None or contributions.empty:
        return []
    idle = int((contributions["contribution"].abs() < IDLE).sum())
    text = (
        f"Of the {len(contributions)} nodes at τ = {setting(contributions['tau'].iloc[0])}, {idle} add less"
        f" than {percent(IDLE)} of the circuit's gain on held-out pairs"
    )
    minimal = idle * 2 <= len(contributions)
    return [Statement(text + ("." if minimal else ": it is not minimal."), "finding" if minimal else "weak")]


def _quality_blocks(quality: pd.DataFrame | None, contributions: pd.DataFrame | None) -> list[Block]:
    if quality is None or quality.empty or contributions is None:
        return []
    titles = {
        "faithfulness": "Faithfulness",
        "completeness": "Without the circuit",
        "masks": "By learnt masks",
        "random": "Random nodes",
    }
    names = [name for name in titles if name in quality]
    return [
        ReportTable(
            "The circuits on validation pairs: the share of the difference that the circuit alone, everything"
            " but the circuit, and as many nodes chosen by learnt masks and at random recover.",
            [
                Column("τ (nats)", "number"),
                Column("Nodes", "number"),
                *(Column(titles[name], "number") for name in names),
                Column("Divergence (nats)", "number"),
            ],
            [
                [
                    number(row["tau"]),
                    f"{int(row['n_nodes'])}",
                    *(
                        f"{percent(row[n])} {interval(100 * row[f'{n}_low'], 100 * row[f'{n}_high'], 0)}"
                        for n in names
                    ),
                    number(row["divergence"]),
                ]
                for row in quality.sort_values("tau").to_dict("records")
            ],
        ),
        picture(
            "figure-circuit-quality",
            "The circuits on held-out pairs",
            "Left, what circuits of the sweep recover, alone and taken away. Right, what each node adds to"
            " one of them.",
            circuit_quality(quality, contributions),
        ),
    ]


def _members(members: pd.DataFrame, tau: float) -> list[Statement]:
    if members.empty:
        return [Statement("No node survives any threshold.", "weak")]
    named = [feature_name(str(row["site"]), row["feature"]) for row in members.head(5).to_dict("records")]
    rest = f" and {len(members) - 5} more" if len(members) > 5 else ""
    return [
        Statement(
            f"At τ = {setting(tau)} what is left is {listing(named) if not rest else ', '.join(named)}{rest}."
        )
    ]


def _orders(overlap: pd.DataFrame) -> list[Statement]:
    known = overlap[overlap["jaccard"].notna()]
    if known.empty or int(known["n_orders"].iloc[0]) < 2:
        return [Statement("The circuit was searched in one visiting order only.", "absent")]
    mean = float(known["jaccard"].mean())
    text = (
        f"Circuits found in {int(known['n_orders'].iloc[0])} visiting orders share {fixed(mean)} of their"
        " nodes on average (Jaccard overlap over orders and thresholds)"
    )
    if mean < UNSTABLE:
        return [Statement(text + ": which nodes survive depends much on the order.", "weak")]
    return [Statement(text + ".")]


def _blocks(sizes: pd.DataFrame, members: pd.DataFrame, steps: pd.DataFrame, tau: float) -> list[Block]:
    blocks: list[Block] = [
        Prose(
            "All nodes start out patched; sites are visited from the last to the first, and inside a site"
            " from the least to the most important node. The survivors of one threshold are where the next"
            " starts, so the circuits are nested. Found on discovery pairs."
        ),
        ReportTable(
            "Circuits by threshold.",
            [
                Column("τ (nats)", "number"),
                Column("Nodes", "number"),
                Column("Error nodes", "number"),
                Column("Divergence (nats)", "number"),
                Column("Size of the edit", "number"),
            ],
            [
                [
                    setting(row["tau"]),
                    f"{int(row['n_nodes'])}",
                    f"{int(row['n_errors'])}",
                    number(row["divergence"]),
                    number(row["edit_magnitude"]),
                ]
                for row in sizes.to_dict("records")
            ],
        ),
    ]
    if len(members):
        blocks.append(
            ReportTable(
                f"Members of the circuit at τ = {setting(tau)}"
                + (f", the {_N_MEMBERS} of largest attribution." if len(members) > _N_MEMBERS else "."),
                [Column("Node", "code"), Column("Attribution", "number")],
                [
                    [
                        feature_name(str(row["site"]), row["feature"]),
                        signed(row["attribution"], 4) if np.isfinite(row["attribution"]) else MISSING,
                    ]
                    for row in members.head(_N_MEMBERS).to_dict("records")
                ],
            )
        )
    blocks.append(
        picture(
            "figure-acdc",
            "Pruning the full patch to a circuit",
            "Divergence from the target's prediction as nodes are taken out, for each visiting order.",
            acdc_curves(steps),
        )
    )
    return blocks
