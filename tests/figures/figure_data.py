"""Data of the size and shape that the analyses give, for drawing."""

from __future__ import annotations

import numpy as np
import pandas as pd

SITES = ("layers.0.mixer", "layers.2.mixer", "layers.4.mixer", "layers.6.mixer")
PROPERTIES = (
    ("structural_gc_content", "structural"),
    ("structural_length", "structural"),
    ("structural_gc_5utr", "structural"),
    ("structural_mfe", "structural"),
    ("functional_mrl", "functional"),
    ("functional_te", "functional"),
    ("functional_half_life", "functional"),
    ("regulatory_uaug_overlapping_count", "regulatory"),
    ("regulatory_uorf_contained_count", "regulatory"),
    ("regulatory_kozak_score", "regulatory"),
    ("regulatory_csc", "regulatory"),
    ("regulatory_are_nonamer_count", "regulatory"),
)


def associations(n_features: int = 150, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = 900
    rows = []
    loadings = rng.normal(size=(len(PROPERTIES), 3)) * 0.35
    for site in SITES:
        features = rng.normal(size=(n_features, 3)) * (rng.random((n_features, 1)) < 0.5)
        effects = np.tanh(features @ loadings.T + rng.normal(size=(n_features, len(PROPERTIES))) / np.sqrt(n))
        z = np.arctanh(effects) * np.sqrt(n - 3)
        p = 2 * np.exp(-(z**2) / 2) / (1 + np.abs(z))
        for f in range(n_features):
            for k, (name, category) in enumerate(PROPERTIES):
                rows.append((site, f, name, category, "continuous", effects[f, k], min(p[f, k], 1.0)))
    table = pd.DataFrame(
        rows, columns=["site", "feature", "property", "category", "kind", "effect", "cluster_p_value"]
    )
    order = table["cluster_p_value"].rank()
    table["q_value"] = np.minimum(1, table["cluster_p_value"] * len(table) / order)
    return table


def best_matches(table: pd.DataFrame) -> pd.DataFrame:
    found = table[table["q_value"] <= 0.05].assign(size=lambda t: t["effect"].abs())
    best = found.sort_values("size", ascending=False).drop_duplicates(["site", "feature"]).copy()
    best["rank_within_property"] = best.groupby("property").cumcount() + 1
    best["replicated"] = best["size"] > 0.2
    return best.drop(columns="size")


def hierarchy() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = []
    for site in SITES:
        shares = rng.dirichlet([4, 2, 3, 5])
        for category, share in zip(("structural", "functional", "regulatory", "none"), shares, strict=True):
            rows.append(
                (site, category, 812, round(share * 812), share, min(1, share * 1.6), "functional_mrl")
            )
    columns = ["site", "category", "n_alive", "n_best", "share_best", "share_any", "top_property"]
    return pd.DataFrame(rows, columns=columns)


def profile(before: int, after: int, coding_from: int, coding_to: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = np.arange(-before, after)
    parts = []
    for feature in range(4):
        coding = (x >= coding_from) & (x < coding_to)
        mean = (
            0.2
            + 0.1 * feature
            + coding * (0.4 + 0.5 * (x % 3 == feature % 3))
            + 0.03 * rng.normal(size=len(x))
        )
        parts.append(
            pd.DataFrame(
                {
                    "feature": 100 + feature,
                    "position": x,
                    "mean": mean,
                    "standard_error": 0.03,
                    "n_sequences": 640,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def profiles() -> dict[str, pd.DataFrame]:
    return {"start codon": profile(30, 45, 0, 45, 0), "stop codon": profile(45, 30, -45, 0, 1)}


def calibration(lift: float = 1.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    expected = np.linspace(0.02, 4, 150)[::-1]
    quantiles = pd.DataFrame(
        {
            "expected": expected,
            "observed": expected * 3 + expected**2 * 5,
            "permuted": expected * lift,
            "permuted_low": expected * lift - 0.08 * expected,
            "permuted_high": expected * lift + 0.3 * expected,
        }
    )
    summary = pd.DataFrame(
        {
            "inflation_factor": [1.01],
            "share_with_discovery": [0.045],
            "n_permutations": [200],
            "alpha": [0.05],
        }
    )
    return quantiles, summary


def history(configs: tuple[str, ...] = ("topk", "relu")) -> pd.DataFrame:
    rows = []
    for s, site in enumerate(SITES):
        for c, config in enumerate(configs):
            for step in range(0, 3000, 50):
                t = step / 3000
                ev = 1 - np.exp(-6 * (t + 0.01)) * 0.8 - 0.03 * s - 0.05 * c
                l0 = 32 if config == "topk" else 30 + 200 * np.exp(-5 * t) + 4 * s
                rows.append((site, config, step, step * 1024, ev, l0, 0.02 * s + 0.05 * t, 1 - ev))
    columns = ["site", "config", "step", "tokens", "explained_variance", "l0", "dead_share", "mse"]
    return pd.DataFrame(rows, columns=columns)


def metrics(configs: tuple[str, ...] = ("topk", "relu")) -> pd.DataFrame:
    last = history(configs).groupby(["site", "config"], sort=False).last().reset_index()
    last["explained_variance"] -= 0.02
    return last


def sweep() -> pd.DataFrame:
    """Explained variance rises with L0, and the second family lies below the first."""
    rows = [
        (site, f"{family}_{k}", k * (1.1 if family == "relu" else 1), 0.95 - 1.2 / k - 0.04 * f - 0.02 * s)
        for s, site in enumerate(SITES)
        for f, family in enumerate(("topk", "relu"))
        for k in (4, 8, 16, 32)
    ]
    return pd.DataFrame(rows, columns=["site", "config", "l0", "explained_variance"])


def rungs() -> pd.DataFrame:
    """Settings of two grids and those in use, over all sites."""
    rng = np.random.default_rng(4)
    names = ["present", *(f"{grid} {i}" for grid in ("relu", "topk") for i in range(1, 10)), "batchtopk"]
    l0 = np.round(rng.uniform(2, 12, len(names)), 2)
    return pd.DataFrame(
        {
            "rung": names,
            "n_seeds": 3,
            "l0": l0,
            "lowest_explained_variance": 1 - 0.3 / l0,
            "pw_mcc": 0.95 - 0.02 * l0,
            "chance_cosine": 0.22,
        }
    )


def densities() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    return {
        site: np.where(rng.random(1024) < 0.05, 0, np.minimum(1, 10 ** rng.normal(-2.2, 0.7, 1024)))
        for site in SITES
    }


def stability(n_others: int = 4, n_features: int = 96, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    parts = []
    for depth, site in enumerate(SITES):
        back = rng.binomial(n_others, np.where(rng.random(n_features) < 0.8 - 0.2 * depth, 0.97, 0.1))
        share = back / n_others if n_others else np.full(n_features, np.nan)
        certified = np.where(share >= 0.75, "yes", "no") if n_others >= 4 else "unknown"
        parts.append(
            pd.DataFrame(
                {
                    "site": site,
                    "feature": np.arange(n_features),
                    "alive": rng.random(n_features) < 0.98,
                    "n_others": n_others,
                    "stability": share,
                    "best_cosine": np.clip(0.5 + 0.45 * share + rng.normal(0, 0.05, n_features), -1, 1),
                    "correlation": np.clip(0.4 + 0.55 * share + rng.normal(0, 0.08, n_features), -1, 1),
                    "certified": certified,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
