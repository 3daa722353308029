"""Do features come back in other seeds, and are those that do the true ones? One JSON line a case.

``synthetic``: activations with known features; the stability of learned ones tells true from artefact (``auc``), certified ones
are true (``precision``), and ``recall`` of the known ones beside it. ``real``: dictionaries of helix_mini on the demo, one site
after the other, and pooled dictionaries of disjoint sets of five seeds against one another; then a line over all sites.
Seeds differ in initialisation and in the order of the data; everything is measured on tokens that were not trained on::

    python benchmarks/stability.py                               # synthetic cases, and the default dictionaries at the four mixers
    python benchmarks/stability.py --cases real --sites residual
    python benchmarks/stability.py --cases real --set '{"architecture": "relu", "l1_coefficient": 0.002}' --epochs 40
    python benchmarks/stability.py --cases real --data variants --file snv_5utr_mrl.csv    # further: --data random
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from architectures import ROOT, Data, demo_table, parameters_of

from helix_sae.models.helix.loading import load_helix
from helix_sae.mrna.readers import read_sequences
from helix_sae.pipelines.ingestion.nodes import tabulate
from helix_sae.pipelines.ingestion.parameters import IngestionParameters
from helix_sae.pipelines.sae_training.parameters import SaeTrainingParameters
from helix_sae.sae import (
    ArrayBatches,
    KnownFeatures,
    SaeConfig,
    SparseAutoencoder,
    SyntheticConfig,
    certify,
    estimate_scaling,
    evaluate_sae,
    feature_stability,
    held_out_features,
    judge_stability,
    parse_sae_config,
    train_saes,
)
from helix_sae.sae.pooling import pool_features, train_on
from helix_sae.sae.stability import best_partners, matched_cosines

HARD: dict[str, Any] = {"background_rank": 8, "background_share": 0.3}
SYNTHETIC = {
    "independent": SyntheticConfig(),
    "correlated": SyntheticConfig(correlation=0.5),
    "background": SyntheticConfig(**HARD),
    "hierarchical": SyntheticConfig(share_children=0.4),
    "all": SyntheticConfig(correlation=0.5, share_children=0.3, **HARD),
}
LEARNED: dict[str, dict[str, Any]] = {
    "relu": {"architecture": "relu", "l1_coefficient": 1e-3, "learning_rate": 3e-3, "expansion_factor": 2.0},
    "topk": {"architecture": "topk", "k": 4, "learning_rate": 3e-3, "expansion_factor": 2.0},
}
SEEDS = 5
TOKENS, HELD_OUT = 40_000, 16_000
REAL_HELD_OUT = 32_768
VARIANTS = {
    "columns": {"sequence": "utr", "functional_mrl": "mrl", "mother": "mother", "reads": "reads"},
    "reporter": {"five_prime": "", "coding": "AUGGGCGAA"},
    "cluster_by": "mother",
}
RANDOM = {
    "columns": {"sequence": "utr", "functional_mrl": "mrl"},
    "reporter": {"five_prime": "", "coding": "AUGGGCGAA"},
}


def trained(
    x: np.ndarray | torch.Tensor, config: SaeConfig, seeds: list[int], epochs: int, batch: int
) -> tuple[dict[str, SparseAutoencoder], float]:
    """SAEs of seeds that follow one another, each with its own order of the data, side by side; and seconds."""
    start = time.perf_counter()
    result = train_saes(
        lambda seed: ArrayBatches({"a": x}, batch, seed=seed, epochs=epochs),
        {"c": config},
        n_seeds=len(seeds),
        seed=seeds[0],
        log_every=10**9,
    )
    saes = dict(zip((f"seed {seed}" for seed in seeds), result.seeds()["a"], strict=True))
    return saes, time.perf_counter() - start


def synthetic(case: str, name: str, epochs: int, world: int) -> dict[str, Any]:
    """Known features against the stability of learned ones."""
    known = KnownFeatures(SYNTHETIC[case], seed=world)
    train, held = known.draw(TOKENS, seed=1), known.draw(HELD_OUT, seed=2)
    saes, seconds = trained(
        train.activations, parse_sae_config(LEARNED[name]), list(range(SEEDS)), epochs, 1024
    )
    seeds = {seed: held_out_features(sae, held.activations) for seed, sae in saes.items()}
    first = next(iter(seeds))
    table = feature_stability(seeds[first], {seed: s for seed, s in seeds.items() if seed != first})
    summary = evaluate_sae(saes[first], [torch.from_numpy(held.activations)]).summary
    return {
        "case": case,
        "architecture": name,
        "world": world,
        "n_seeds": SEEDS,
        "epochs": epochs,
        "explained_variance": summary["explained_variance"],
        "l0": summary["l0"],
        **judge_stability(table, seeds[first], held),
        "seconds": seconds,
    }


def real(
    site: str, train: np.ndarray, held: np.ndarray, config: SaeConfig, options: argparse.Namespace
) -> dict[str, Any]:
    """One site: what the seeds have in common, what does not come back, and dictionaries pooled from disjoint sets of seeds."""
    x = torch.from_numpy(held[:: max(1, len(held) // REAL_HELD_OUT)][:REAL_HELD_OUT])
    sets = [list(range(SEEDS * i, SEEDS * (i + 1))) for i in range(max(1, options.pools))]
    found = [trained(train, config, seeds, options.epochs, options.batch) for seeds in sets]
    certificate = certify(found[0][0], x, site)
    measures = [evaluate_sae(sae, [x]).summary for sae in found[0][0].values()]
    line: dict[str, Any] = {
        **certificate.summary,
        **{
            key: float(np.mean([m[key] for m in measures]))
            for key in ("explained_variance", "l0", "dead_share")
        },
        "subspaces": certificate.subspaces,
        "seconds": [seconds for _, seconds in found],
    }
    if len(found) > 1:
        line["pooled"] = pooled(site, train, x, [saes for saes, _ in found], options)
    return line


def pooled(
    site: str,
    train: np.ndarray,
    x: torch.Tensor,
    sets: list[dict[str, SparseAutoencoder]],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Dictionaries pooled each from its own seeds and trained on in its own order; matched on discovery tokens."""
    sample = torch.from_numpy(train[:: max(1, len(train) // REAL_HELD_OUT)][:REAL_HELD_OUT])
    made: list[SparseAutoencoder] = []
    for number, saes in enumerate(sets):
        start = pool_features(
            list(saes.values()), [held_out_features(sae, sample) for sae in saes.values()], site
        )
        epochs = -(-options.pooled_steps * options.batch // len(train))
        batches = ArrayBatches({site: train}, options.batch, seed=1000 + number, epochs=epochs)
        scaling = estimate_scaling(torch.from_numpy(train), site)
        trained_on = train_on(
            {site: start}, batches, {site: scaling}, options.pooled_steps, seed=1000 + number
        )
        made.append(trained_on[site])
    features = [held_out_features(sae, x) for sae in made]
    back = [
        float((best_partners(one, other).likeness >= 0.7)[one.alive].mean())
        for one, other in permutations(features, 2)
    ]
    alike = [
        float(matched_cosines(a.directions[a.alive], b.directions[b.alive]).mean())
        for a, b in combinations(features, 2)
    ]
    fresh = {name: held_out_features(sae, x) for name, sae in sets[1].items()}
    against_seeds = feature_stability(features[0], fresh, site)
    living = against_seeds[against_seeds["alive"]]
    measures = [evaluate_sae(sae, [x]).summary for sae in made]
    return {
        "n_features": [sae.d_sae for sae in made],
        "pw_mcc": float(np.mean(alike)),
        "pw_mcc_lowest": min(alike),
        "explained_variance": [m["explained_variance"] for m in measures],
        "l0": [m["l0"] for m in measures],
        "back_in_the_other_pool": float(np.mean(back)),
        "back_in_seeds_it_was_not_made_from": float(living["stability"].mean()),
        "certified_by_them": float((living["certified"] == "yes").mean()),
        "steps": options.pooled_steps,
    }


def table_of(options: argparse.Namespace) -> pd.DataFrame:
    """Records of the demo, of a reporter assay's variants, or of random 5'UTRs."""
    if options.data == "demo":
        return demo_table()
    if options.file is None:
        raise SystemExit(f"--data {options.data} needs --file")
    values = {**parameters_of("ingestion"), **(VARIANTS if options.data == "variants" else RANDOM)}
    table = tabulate(read_sequences(options.file), IngestionParameters(**values))[0]
    return table.sample(min(len(table), options.records), random_state=0).reset_index(drop=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=["synthetic", "real"], choices=["synthetic", "real"])
    parser.add_argument("--synthetic", nargs="+", default=list(SYNTHETIC), choices=list(SYNTHETIC))
    parser.add_argument("--architectures", nargs="+", default=list(LEARNED), choices=list(LEARNED))
    parser.add_argument("--worlds", nargs="+", type=int, default=[0], help="seeds of the known features")
    parser.add_argument("--synthetic-epochs", type=int, default=60)
    parser.add_argument("--sites", nargs="+", default=["mixers"], help="names, or mixers, or residual")
    parser.add_argument("--data", default="demo", choices=["demo", "variants", "random"])
    parser.add_argument("--file", help="table of the variants or of the random 5'UTRs")
    parser.add_argument("--records", type=int, default=20_000, help="at most so many of them")
    parser.add_argument(
        "--set", default="{}", help="JSON object of an SAE's settings in place of the default's"
    )
    parser.add_argument("--epochs", type=int, help="other than the default run's")
    parser.add_argument("--batch", type=int, help="other than the default run's")
    parser.add_argument("--pooled-steps", type=int, help="other than the default run's")
    parser.add_argument("--pools", type=int, default=3, help="sets of five seeds; 1: none is pooled")
    options = parser.parse_args()
    if "synthetic" in options.cases:
        for case in options.synthetic:
            for name in options.architectures:
                for world in options.worlds:
                    line = synthetic(case, name, options.synthetic_epochs, world)
                    print(json.dumps({"benchmark": "stability", "truth": True, **line}), flush=True)
    if "real" not in options.cases:
        return
    given = parameters_of("sae_training")
    values = json.loads(options.set) or given["saes"][given["chosen"]]
    defaults = SaeTrainingParameters(**given)
    options.batch = options.batch or defaults.batch_size
    options.pooled_steps = options.pooled_steps or defaults.pooled_steps
    model = load_helix(ROOT / "data/06_models/helix_mini")
    ends = {"mixers": ".mixer", "residual": ""}
    named = {key: [f"layers.{layer}{end}" for layer in (0, 2, 4, 6)] for key, end in ends.items()}
    sites = [site for name in options.sites for site in named.get(name, [name])]
    data = Data(model, table_of(options), sites)
    options.epochs = options.epochs or defaults.n_epochs(len(data.train[sites[0]]))
    common = {"data": options.data, "config": values, "epochs": options.epochs, "batch": options.batch}
    lines: list[dict[str, Any]] = []
    for site in sites:
        config = parse_sae_config(values)
        lines.append(real(site, data.train[site], data.held[site], config, options))
        print(json.dumps({"benchmark": "stability", "truth": False, **common, **lines[-1]}), flush=True)
    measures = ("pw_mcc", "share_back", "share_certified", "explained_variance", "l0", "chance_back")
    over = {key: [float(line[key]) for line in lines] for key in measures}
    if all("pooled" in line for line in lines):
        for key in ("pw_mcc", "back_in_the_other_pool", "certified_by_them"):
            over[f"pooled_{key}"] = [float(line["pooled"][key]) for line in lines]
        for key in ("explained_variance", "l0"):
            over[f"pooled_{key}"] = [float(np.mean(line["pooled"][key])) for line in lines]
    ends_of = {
        key: {"mean": float(np.mean(v)), "lowest": min(v), "highest": max(v)} for key, v in over.items()
    }
    print(
        json.dumps({"benchmark": "stability", "truth": False, **common, "over": sites, **ends_of}), flush=True
    )


if __name__ == "__main__":
    main()
