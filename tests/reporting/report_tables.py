"""Small tables of the shapes that the analyses give, with one thing in each that a sentence of the report is about."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from helix_sae.reporting.sections import ModelFacts
from helix_sae.reporting.sections.associations import AssociationInputs
from helix_sae.reporting.sections.comparisons import ComparisonInputs
from helix_sae.reporting.sections.effects import EffectInputs

SITES = ("layers.0.mixer", "layers.2.mixer")


def facts(**changes: Any) -> ModelFacts:
    given = {
        "source": "helix_mini",
        "fingerprint": "0123456789abcdef" * 4,
        "codon_markers": "cds",
        "widths": dict.fromkeys(SITES, 96),
        "n_sequences": 240,
        "n_tokens": 20_000,
    }
    return ModelFacts(**{**given, **changes})


def rejected(n: int = 3) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "file": "a.csv",
            "record": [f"line {i}" for i in range(n)],
            "field": ["sequence", *["cds_start"] * (n - 1)],
            "reason": ["holds a letter X", *["is beyond the end"] * (n - 1)],
        }
    )


def metrics(
    variance: tuple[float, ...] = (0.91, 0.88), dead: tuple[float, ...] = (0.1, 0.2), **more: Any
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "site": SITES[: len(variance)],
            "config": "topk",
            "n_tokens": 4000.0,
            "l0": 8.0,
            "mse": 0.1,
            "explained_variance": variance,
            "cosine": 0.95,
            "dead_share": dead,
            "dense_share": 0.02,
            "decoder_similarity": 0.3,
            **more,
        }
    )


def history() -> pd.DataFrame:
    steps = np.arange(0, 200, 50)
    part = {
        "config": "topk",
        "step": steps,
        "tokens": 512 * steps,
        "loss": 1.0,
        "mse": 1 / (steps + 1),
        "l1": 0.0,
    }
    part |= {"explained_variance": 0.5 + steps / 400, "l0": 8.0, "dead_share": 0.1, "lr": 1e-3}
    return pd.concat([pd.DataFrame({"site": site, **part}) for site in SITES], ignore_index=True)


def densities() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {site: np.where(rng.random(64) < 0.1, 0, 10 ** rng.uniform(-3, -0.5, 64)) for site in SITES}


def association_inputs(
    *, n: int = 4, replicated: int = 3, partial: int = 2, false_share: float = 0.03, **changes: Any
) -> AssociationInputs:
    """``n`` significant associations of which ``replicated`` replicated and ``partial`` stay when adjusted."""
    rng = np.random.default_rng(1)
    names = [f"functional_p{i}" for i in range(6)]
    tests = pd.DataFrame(
        [
            {
                "site": site, "feature": feature, "property": name, "category": "functional", "kind": "continuous",
                "effect": rng.uniform(-0.9, 0.9), "cluster_p_value": rng.uniform(0.1, 1), "q_value": 0.9,
            }
            for site in SITES for feature in range(5) for name in names
        ]
    )  # fmt: skip
    tests.loc[: n - 1, ["q_value", "cluster_p_value"]] = 0.001
    found = tests.head(n)
    order = np.arange(n)
    significant = found.assign(
        partial_effect=np.where(order < partial, found["effect"], -found["effect"]),
        partial_significant=True,
        validation_n=80,
        validation_effect=0.9 * found["effect"],
        validation_low=0.9 * found["effect"] - 0.1,
        validation_high=0.9 * found["effect"] + 0.1,
        validation_partial_effect=0.5 * found["effect"],
        replicated=order < replicated,
        partial_replicated=order < partial,
    )
    everywhere = {
        "site": "all",
        "category": "all",
        "property": "all",
        "n_significant": n,
        "n_replicated": replicated,
    }
    rates = {"replication_rate": replicated / n if n else np.nan, "rate_low": 0.4, "rate_high": 0.95}
    summary = pd.DataFrame(
        {
            "site": SITES, "n_features": 5, "n_alive": 5, "n_tests": 30, "n_significant": [n, 0],
            "n_partial_significant": [partial, 0], "n_features_significant": 1, "n_replicated": [replicated, 0],
        }
    )  # fmt: skip
    given = {
        "associations": tests,
        "significant": significant,
        "best_matches": found.drop_duplicates(["site", "feature"]).assign(rank_within_property=1, replicated=True),
        "validation": pd.DataFrame([{**everywhere, **rates}]),
        "summary": summary,
        "warnings": pd.DataFrame(columns=["property", "warning", "detail"]),
        "high_low": pd.DataFrame({"agrees": [True, True, False], "hedges_g": [1.0, 0.8, np.nan]}),
        "calibration": pd.DataFrame(
            {
                "test": ["raw"], "n_permutations": 200, "share_with_discovery": false_share, "standard_error": 0.01,
                "inflation_factor": 1.02, "alpha": 0.05,
            }
        ),
        "quantiles": pd.DataFrame(
            {
                "test": "raw", "expected": [2.0, 1.0], "observed": [4.0, 1.5], "permuted": [2.0, 1.0],
                "permuted_low": [1.8, 0.9], "permuted_high": [2.4, 1.2],
            }
        ),
    }  # fmt: skip
    return AssociationInputs(**{**given, **changes})


def concepts(
    own: tuple[float, ...] = (0.9, 0.5, 0.4), rival: tuple[float, ...] = (0.6, 0.51, 0.7)
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Matches, and the best detector of each kind: features against neurons."""
    names = [f"concept_{i}" for i in range(len(own))]
    matches = pd.DataFrame(
        {
            "site": SITES[0], "feature": range(len(own)), "concept": names, "f1": own, "precision": 0.8, "recall": 0.7,
            "f1_always": 0.1, "null_f1_95": 0.2, "p_value": 0.001,
        }
    )  # fmt: skip
    best = matches[["concept", "site", "feature", "f1"]].assign(kind="sae", discovery_f1=own)
    others = best.assign(kind="neurons", f1=rival, feature=3)
    return matches, pd.concat([best, others], ignore_index=True)


def profiles() -> pd.DataFrame:
    position = np.arange(-10, 10)
    part = {"position": position, "mean": 0.5, "standard_error": 0.02, "n_sequences": 50}
    return pd.concat(
        [
            pd.DataFrame(
                {"landmark": mark, "site": SITES[0], "feature": 1, "name": "start codon: L0.mixer.1", **part}
            )
            for mark in ("start codon", "stop codon")
        ],
        ignore_index=True,
    )


def probe(validation: float = 0.8, floor: float = 0.3, **changes: Any) -> pd.DataFrame:
    row = {
        "target": "functional_mrl", "kind": "ridge", "metric": "r2", "out_of_fold": 0.82, "validation": validation,
        "n_validation": 120, "n_clusters_validation": 40, "floor": floor,
    }  # fmt: skip
    return pd.DataFrame([{**row, **changes}])


def pairs(n: int = 40, n_sham: int = 10) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "split": ["discovery", "validation"] * (n // 2),
            "kind": ["mother", "uaug_make"] * (n // 2),
            "is_sham": np.arange(n) < n_sham,
            "cluster": [f"c{i // 2}" for i in range(n)],
            "difference": np.linspace(-1, 1, n),
            "difference_kind": "measured",
        }
    )


def agreement(spearman: float = 0.5, low: float = 0.3, high: float = 0.7, **changes: Any) -> pd.DataFrame:
    row = {
        "split": "validation", "has_indel": False, "n_pairs": 30, "n_clusters": 12, "spearman": spearman, "low": low,
        "high": high, "pearson": spearman, "n_signed": 30, "sign_agreement": 0.7,
    }  # fmt: skip
    return pd.DataFrame([{**row, **changes}])


def comparison(n: int = 20) -> pd.DataFrame:
    made = np.linspace(-1, 1, n)
    return pd.DataFrame(
        {
            "predicted_difference": 0.5 * made,
            "difference": made,
            "split": ["discovery", "validation"] * (n // 2),
            "is_sham": False,
        }
    )


def effects(n: int = 6, confirmed: int = 3, error: float = 0.1, **changes: Any) -> pd.DataFrame:
    """``n`` tested features, the first ``confirmed`` of them confirmed, and an error node of a given effect at each site."""
    sizes = np.linspace(1.0, 0.3, n) * np.where(np.arange(n) % 2, -1, 1)
    rows = pd.DataFrame(
        {
            "site": [SITES[i % 2] for i in range(n)],
            "feature": [str(i) for i in range(n)],
            "discovery_oriented": sizes,
            "validation_oriented": 0.8 * sizes,
            "selected": True,
            "confirmed": np.arange(n) < confirmed,
        }
    )
    errors = pd.DataFrame(
        {
            "site": SITES,
            "feature": "error",
            "discovery_oriented": error,
            "validation_oriented": np.nan,
            "selected": False,
            "confirmed": False,
        }
    )
    table = pd.concat([rows, errors], ignore_index=True)
    for side in ("discovery", "validation"):
        table = table.assign(
            **{
                f"{side}_low": table[f"{side}_oriented"] - 0.1,
                f"{side}_high": table[f"{side}_oriented"] + 0.1,
                f"{side}_n_pairs": 20,
                f"{side}_n_clusters": 8,
            }
        )
    tested = table["selected"]
    more = {"estimator": "exact", "direction": "noising", "positions": "all"}
    more |= {"p_value": np.where(tested, 0.001, np.nan), "q_value": np.where(tested, 0.004, np.nan)}
    return table.assign(**{**more, **changes})


def designed(decoys: float = 0.1, shams: float = 0.1) -> pd.DataFrame:
    """Designed pairs: upstream AUGs that are felt, with their shams, and decoys of a given size."""
    rng = np.random.default_rng(2)
    n = 20
    return pd.DataFrame(
        {
            "kind": np.repeat(["uaug_make", "uaug_break", "cpg_transposition"], n),
            "role": np.repeat(["effect", "sham", "decoy"], n),
            "is_sham": np.repeat([False, True, False], n),
            "split": ["discovery", "validation"] * (3 * n // 2),
            "total_effect": np.repeat([1.0, shams, decoys], n) * rng.uniform(0.9, 1.1, 3 * n),
            "predicted_difference": rng.normal(size=3 * n),
            "difference": rng.normal(size=3 * n),
        }
    )


def designed_test(p_value: float = 1e-6, sign: float = 0.9) -> pd.DataFrame:
    row = {"n": 20, "n_sham": 20, "median": 1.0, "median_sham": 0.1, "p_value": p_value, "auc": 0.95}
    row |= {"sign_agreement": sign, "sign_low": sign - 0.1, "sign_high": min(1.0, sign + 0.05)}
    kinds = ("uaug_make or uaug_break", "kozak_change")
    return pd.DataFrame([{"split": s, "kind": k, **row} for s in ("all", "validation") for k in kinds])


def estimates(spearman: tuple[float, ...] = (0.95, 0.9)) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "site": SITES[: len(spearman)], "estimator": "atp", "against": "exact", "spearman": spearman,
            "top_overlap": 0.9, "sign_agreement": 0.97, "n_nodes": 60, "screened": False,
        }
    )  # fmt: skip


def positions() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "following_low": [0.0, 0.5], "following_high": [0.5, 1.0], "n_pairs": [10, 12], "predicted": [0.1, 0.2],
            "known": [0.3, 0.4], "feature_effect": [0.01, 0.05], "spearman": [0.2, 0.6],
        }
    )  # fmt: skip


def effect_inputs(**changes: Any) -> EffectInputs:
    given = {
        "effects": effects(),
        "agreement": estimates(),
        "designed": designed(),
        "designed_test": designed_test(),
        "positions": positions(),
    }
    return EffectInputs(**{**given, **changes})


def comparison_inputs(
    *,
    lead: tuple[float, float] = (0.05, 0.2),
    own_lead: tuple[float, float] = (0.1, 0.3),
    ceiling: float = 0.9,
    reached: bool = True,
    **changes: Any,
) -> ComparisonInputs:
    """SAE features, the same in a random order, and principal components; ``lead`` is the interval of the lead over those."""
    keys = [("sae", "exact"), ("sae", "random"), ("pca", "exact")]
    k = np.array([0, 1, 4, 16, 64])
    curves = pd.concat(
        [
            pd.DataFrame(
                {
                    "dictionary": d, "ranking": r, "curve": curve, "k": k, "share": k / 64,
                    "faithfulness": k / 64 if curve == "sufficiency" else 1 - k / 64, "low": k / 64 - 0.1,
                    "high": k / 64 + 0.1, "edit_magnitude": np.sqrt(k), "n_pairs": 30, "n_clusters": 12,
                }
            )
            for d, r in keys for curve in ("sufficiency", "necessity")
        ],
        ignore_index=True,
    )  # fmt: skip
    lows, highs = [np.nan, own_lead[0], lead[0]], [np.nan, own_lead[1], lead[1]]
    baselines = pd.DataFrame(
        {
            "dictionary": [d for d, _ in keys], "ranking": [r for _, r in keys], "n_nodes": 64,
            "cpr": 0.7, "cpr_low": 0.6, "cpr_high": 0.8, "cmd": 0.3, "cmd_low": 0.2, "cmd_high": 0.4,
            "log_area": [0.5, 0.3, 0.4], "lead": [0.0, sum(own_lead) / 2, sum(lead) / 2], "lead_low": lows,
            "lead_high": highs, "k_at_level": [16.0 if reached else np.nan, np.nan, np.nan], "level": 0.8,
            "reached": 0.95 if reached else 0.6,
        }
    )  # fmt: skip
    whole = {
        "recovered": ceiling,
        "low": ceiling - 0.1,
        "high": ceiling + 0.1,
        "divergence": 0.01,
        "edit_magnitude": 3.0,
    }
    ceilings = pd.DataFrame(
        [
            {"site": "all", "nodes": "features", **whole},
            {"site": "all", "nodes": "features and error", **whole, "recovered": 1.0},
            {"site": SITES[0], "nodes": "features", **whole, "recovered": 0.2},
            {"site": SITES[1], "nodes": "features", **whole, "recovered": 0.3},
        ]
    )
    spread = {f"recovered{s}{e}": 0.4 for s in ("", "_with_error") for e in ("", "_low", "_high")}
    blocks = pd.DataFrame(
        {"site": SITES, "share": [0.25, 0.75], "effective_features": [3.0, 8.0], "n_nodes": 20, **spread}
    )
    given = {"curves": curves, "baselines": baselines, "ceilings": ceilings, "blocks": blocks}
    return ComparisonInputs(**{**given, **changes})


def steps(screening: str = "none") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "order": np.repeat(["attribution", "random_0"], 4),
            "tau": [0.001, 0.001, 0.1, 0.1] * 2,
            "step": [0, 1, 2, 3] * 2,
            "site": SITES[0],
            "n_removed": 1,
            "n_nodes": [8, 5, 4, 2] * 2,
            "divergence": [0.0, 0.002, 0.01, 0.15] * 2,
            "edit_magnitude": [5.0, 4.0, 3.0, 1.0] * 2,
            "screening": screening,
        }
    )


def circuit(other: str = "same") -> pd.DataFrame:
    """Nodes with the largest threshold that they survived, in two orders of visiting."""
    own = pd.DataFrame(
        {
            "site": [SITES[0]] * 4 + [SITES[1]] * 2,
            "feature": ["0", "1", "2", "error", "0", "9"],
            "attribution": [0.5, -0.9, 0.1, 0.05, 0.3, 0.01],
            "tau": [0.1, 0.1, 0.001, 0.001, 0.001, np.nan],
        }
    )
    changed = own if other == "same" else own.assign(tau=[np.nan, np.nan, np.nan, 0.001, np.nan, 0.1])
    return pd.concat([own.assign(order="attribution"), changed.assign(order="random_0")], ignore_index=True)
