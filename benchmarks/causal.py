"""Speed of the intervention engine: one JSON line a case.

    python benchmarks/causal.py [--pairs 16] [--length 100] [--features 1024] [--threads 2] [--device cuda]

The model has the released one's size and random weights, the autoencoders are untrained TopK ones: speed does not depend on
what they have learned. The naive loop, one full hooked pass for every pair and feature, is timed on a sample and scaled up.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from helix_sae.causal.alignment import TokenPair, align_table
from helix_sae.causal.effects import Effects, effects
from helix_sae.causal.experiment import Experiment
from helix_sae.causal.read_out import Probe
from helix_sae.models.helix.architecture import build_network, released_architecture
from helix_sae.models.helix.model import HelixModel
from helix_sae.sae import TopKConfig, estimate_scaling, random_autoencoder

SITES = ("layers.0.mixer", "layers.2.mixer", "layers.4.mixer", "layers.6.mixer")
NAIVE_SAMPLE = 48
GROWTH_ROUNDS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--length", type=int, default=100)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--active", type=int, default=32, help="active features a token")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    network = build_network(released_architecture(), seed=0).eval().requires_grad_(False)  # as it is loaded
    model = HelixModel(network.to(arguments.device), fingerprint="random", heads=None)
    pairs = substitution_pairs(arguments.pairs, arguments.length, seed=0)
    saes = autoencoders(model, pairs, arguments.features, arguments.active)
    probe = random_probe(model.hidden_size)
    common = {
        "pairs": len(pairs),
        "nucleotides": arguments.length,
        "sites": len(SITES),
        "features": arguments.features,
        "threads": arguments.threads,
        "device": "cpu" if arguments.device == "cpu" else torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }
    exact, seconds = exact_and_estimates(model, saes, probe, pairs)
    passes = int(sum((m > 0).sum() for e in exact for m in e.magnitude.values()))
    naive = seconds["naive_pass"] * len(pairs) * len(SITES) * arguments.features
    report(
        "exact",
        common,
        seconds=seconds["exact"],
        resumed_passes=passes,
        milliseconds_a_pass=1e3 * seconds["exact"] / passes,
        naive_milliseconds_a_pass=1e3 * seconds["naive_pass"],
        naive_seconds_scaled=naive,
        speedup_vs_full_pass_per_feature=naive / seconds["exact"],
        speedup_over_the_same_passes=seconds["naive_pass"] * passes / seconds["exact"],
    )
    for method in ("atp", "ig"):
        fastest, median = seconds[method], seconds[f"{method}_median"]
        report(
            method,
            common,
            seconds=fastest,
            median_seconds=median,
            speedup_vs_exact=seconds["exact"] / fastest,
            speedup_vs_exact_by_median=seconds["exact"] / median,
        )
    for method, sizes in (("atp", (16, 32, 64, 128)), ("exact", (4, 8, 16))):
        report(f"growth_{method}", common, **growth(model, saes, probe, arguments.length, method, sizes))


def exact_and_estimates(
    model: HelixModel, saes: Any, probe: Probe, pairs: list[TokenPair]
) -> tuple[list[Effects], dict[str, float]]:
    """Exact effects, and the seconds that they, a naive pass and the estimates of all pairs take.

    The pace of a machine drifts within minutes. The exact run is therefore stopped after each quarter of the pairs, and what
    it is compared with is timed there, before it and after it: an estimate at each stop by the fastest of a few runs, and the
    mean of the stops taken; the median of all runs is given too.
    """
    quarter = max(1, len(pairs) // 4)
    exact: list[Effects] = []
    exact_seconds = 0.0
    naive: list[float] = []
    estimates: dict[str, list[list[float]]] = {"atp": [], "ig": []}
    for at in range(0, len(pairs) + quarter, quarter):
        for method, times in (("atp", 3), ("ig", 1)):
            estimates[method].append(seconds_of(method, times, model, saes, probe, pairs))
        naive += naive_seconds(model, saes, probe, pairs)
        if pairs[at : at + quarter]:
            spent, result = timed(
                lambda at=at: effects(Experiment(model, saes, probe, pairs[at : at + quarter]))
            )
            exact_seconds += spent
            exact.append(result)
    seconds = {"exact": exact_seconds, "naive_pass": float(np.mean(naive))}
    for method, stops in estimates.items():
        seconds[method] = float(np.mean([min(runs) for runs in stops]))
        seconds[f"{method}_median"] = float(np.median(np.concatenate(stops)))
    return exact, seconds


def seconds_of(
    method: Any, times: int, model: HelixModel, saes: Any, probe: Probe, pairs: list[TokenPair]
) -> list[float]:
    """Some runs of an estimate, after a short one."""
    effects(Experiment(model, saes, probe, pairs[:1]), method)
    return [timed(lambda: effects(Experiment(model, saes, probe, pairs), method))[0] for _ in range(times)]


def growth(
    model: HelixModel, saes: Any, probe: Probe, length: int, method: Any, sizes: tuple[int, ...]
) -> dict[str, Any]:
    """Exponent of time against the number of pairs; the exact runs take 64 features of one site.

    The sizes take turns, as the pace of a machine drifts, and the fastest run of each counts. At every size the pairs differ
    first at places spread evenly, as the tokens behind them are what is computed.
    """
    chosen = {SITES[1]: np.arange(64)} if method == "exact" else None
    used = {SITES[1]: saes[SITES[1]]} if method == "exact" else saes
    sized = [substitution_pairs(n, length, seed=1, evenly=True) for n in sizes]
    seconds = [float("inf")] * len(sizes)
    for _ in range(GROWTH_ROUNDS):
        for i, pairs in enumerate(sized):
            run = lambda pairs=pairs: effects(Experiment(model, used, probe, pairs), method, nodes=chosen)  # noqa: E731
            seconds[i] = min(seconds[i], timed(run)[0])
    slope = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    return {"sizes": list(sizes), "seconds_by_size": [round(s, 4) for s in seconds], "exponent": float(slope)}


def substitution_pairs(n: int, length: int, seed: int, *, evenly: bool = False) -> list[TokenPair]:
    """Random sequences and a copy of each with one substitution, at a random place or at places spread evenly."""
    rng = np.random.default_rng(seed)
    source = rng.choice(list("ACGU"), size=(n, length))
    target = source.copy()
    at = ((np.arange(n) + 0.5) * length / n).astype(int) if evenly else rng.integers(0, length, n)
    target[np.arange(n), at] = [rng.choice([x for x in "ACGU" if x != source[i, at[i]]]) for i in range(n)]
    sides = {"source": source, "target": target}
    columns: dict[str, Any] = {
        f"{side}_sequence": ["".join(row) for row in rows] for side, rows in sides.items()
    }
    nothing = pd.array([pd.NA] * n, "Int64")
    columns |= {f"{side}_{name}": nothing for side in sides for name in ("cds_start", "cds_end")}
    return align_table(pd.DataFrame(columns))


def autoencoders(model: HelixModel, pairs: list[TokenPair], features: int, active: int) -> dict[str, Any]:
    """Untrained autoencoders with the scale of the model's activations."""
    ids, _ = model.tensors([p.source for p in pairs])
    width = model.hidden_size
    config = TopKConfig(k=active, expansion_factor=features / width).resolve(width)
    captured = model.capture(ids, SITES)
    return {
        site: random_autoencoder(config, estimate_scaling(x.reshape(-1, width).cpu(), site), seed).to(
            x.device
        )
        for seed, (site, x) in enumerate(captured.items())
    }


def random_probe(width: int) -> Probe:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(width, 1))
    return Probe("ridge", "random", np.zeros(width), np.ones(width), (weight,), (np.zeros(1),), 1.0)


def naive_seconds(model: HelixModel, saes: Any, probe: Probe, pairs: list[TokenPair]) -> list[float]:
    """Full hooked passes, each of one sequence and one feature; codes are taken as known."""
    spent: list[float] = []
    rng = np.random.default_rng(0)
    for i in range(NAIVE_SAMPLE + 2):
        pair, site = pairs[i % len(pairs)], SITES[i % len(SITES)]
        ids, nucleotide = model.tensors([pair.source])
        x = model.capture(ids, [site])[site]
        direction = saes[site].W_dec[int(rng.integers(saes[site].d_sae))]
        change = torch.randn(x.shape[1], 1).to(model.device) * direction
        start = time.perf_counter()
        with torch.no_grad():
            float(probe(model.pool(model.run(ids, {site: lambda a, change=change: a + change}), nucleotide)))
        spent.append(time.perf_counter() - start)
    return spent[2:]


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def report(case: str, common: dict[str, Any], **values: Any) -> None:
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"case": case, **common, **rounded}), flush=True)


if __name__ == "__main__":
    main()
