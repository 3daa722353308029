"""Features as causal handles, of a finished run: one JSON line a case.

    python benchmarks/handles.py [--data data] [--permutations 200]

Reads the newest tables that ``kedro run`` left under ``--data`` and runs no model. Cases: ``features`` (how many reach 80 % of the
effect, in each order of ranking, with the passes that the order took), ``lead`` (over each other dictionary, with intervals;
``das`` is the supervised ceiling), ``circuit`` (size and faithfulness on validation pairs), ``causes`` and ``cause``
(features confirmed for each kind of edit, and how much of it the certified ones bring about), ``permuted_causes`` (the same
tests with edits and shams exchanged at random in whole families: every discovery is false).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helix_sae.causal.causes import Contrasts, cause_matrix, contrasts_of, permuted
from helix_sae.statistics.bootstrap import replication_rate

FAITHFUL = 0.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument(
        "--permutations", type=int, default=200, help="seeds of the permuted causes; 0 for none"
    )
    arguments = parser.parse_args()
    folder = arguments.data / "08_reporting"
    comparison = newest(folder, "baseline_comparison")
    report_features(comparison)
    report_leads(comparison)
    report_circuits(newest(folder, "circuit_quality"))
    report_causes(newest(folder, "cause_matrix"), newest(folder, "cause_summary"))
    if arguments.permutations:
        report_permuted(contrasts_of(newest(folder, "cause_contrasts")), arguments.permutations)


def newest(folder: Path, name: str) -> pd.DataFrame:
    """The last version of a table."""
    versions = sorted(folder.glob(f"{name}.csv/*/{name}.csv"))
    if not versions:
        raise SystemExit(f"{folder} holds no {name}; run `kedro run` first, or name its data in --data.")
    return pd.read_csv(versions[-1])


def report_features(comparison: pd.DataFrame) -> None:
    for row in comparison.to_dict("records"):
        k = row["k_at_level"]
        report(
            "features",
            dictionary=row["dictionary"],
            ranking=row["ranking"],
            level=row["level"],
            k_at_level=None if pd.isna(k) else int(k),
            of=int(row["n_nodes"]),
            passes_a_pair=row["passes"],
            closeness=row["log_area"],
            closeness_interval=[row["log_area_low"], row["log_area_high"]],
        )


def report_leads(comparison: pd.DataFrame) -> None:
    for row in comparison.iloc[1:].to_dict("records"):
        interval = [row["lead_low"], row["lead_high"]]
        report("lead", over=row["dictionary"], ranking=row["ranking"], lead=row["lead"], interval=interval)


def report_circuits(quality: pd.DataFrame) -> None:
    for row in quality.sort_values("n_nodes").to_dict("records"):
        values: dict[str, Any] = {}
        for name in ("faithfulness", "masks", "random", "completeness"):
            values |= {name: row[name], f"{name}_interval": [row[f"{name}_low"], row[f"{name}_high"]]}
        report("circuit", tau=row["tau"], nodes=int(row["n_nodes"]), pairs=int(row["n_pairs"]), **values)
    enough = quality[quality["faithfulness"] >= FAITHFUL]
    smallest = int(enough["n_nodes"].min()) if len(enough) else None
    report("smallest_faithful_circuit", faithfulness=FAITHFUL, nodes=smallest)


def report_causes(matrix: pd.DataFrame, summary: pd.DataFrame) -> None:
    confirmed = matrix[matrix["confirmed"]]
    kinds = confirmed.groupby(["site", "feature"])["kind"].nunique()
    is_decoy = summary["role"] == "decoy"
    report(
        "causes",
        tests=len(matrix),
        confirmed=len(confirmed),
        features=len(matrix[["site", "feature"]].drop_duplicates()),
        features_confirmed=len(kinds),
        features_of_one_cause=int((kinds == 1).sum()),
        causes=int((~is_decoy).sum()),
        causes_with_a_feature=int((summary.loc[~is_decoy, "n_confirmed"] > 0).sum()),
        causes_with_a_certified_feature=int((summary.loc[~is_decoy, "n_certified"] > 0).sum()),
        decoys_with_a_feature=int((summary.loc[is_decoy, "n_confirmed"] > 0).sum()),
    )
    for row in summary.to_dict("records"):
        names = ("kind", "role", "n_pairs", "n_clusters", "known", "predicted", "sign_agreement")
        more = ("n_confirmed", "n_certified", "n_alone", "detectable", "detectable_share")
        shares: dict[str, Any] = {}
        for name in ("recovered", "recovered_by_certified", "recovered_by_all"):
            shares |= {name: row[name], f"{name}_interval": [row[f"{name}_low"], row[f"{name}_high"]]}
        report("cause", **{name: row[name] for name in (*names, *more)}, **shares)


def report_permuted(measured: Contrasts, n_seeds: int, q: float = 0.05) -> None:
    """False discoveries of each seed; under no true cause the rate of runs with any is what q bounds."""
    found = []
    for seed in range(n_seeds):
        matrix = cause_matrix(permuted(measured, seed), q=q, n_resamples=2)
        found.append(int(matrix["confirmed"].sum()))
    runs = np.array(found) > 0
    share, low, high = replication_rate(runs)
    report(
        "permuted_causes",
        q=q,
        seeds=n_seeds,
        tests=len(matrix),
        false_discovery_rate=share,
        interval=[low, high],
        mean_false_discoveries=float(np.mean(found)),
    )


def report(case: str, **values: Any) -> None:
    print(json.dumps({"case": case, **{name: plain(value) for name, value in values.items()}}), flush=True)


def plain(value: Any) -> Any:
    """Rounded, and null where a number is missing."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return None if not np.isfinite(value) else round(float(value), 4)
    return value


if __name__ == "__main__":
    main()
