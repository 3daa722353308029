"""Toy models of superposition: do SAEs find directions that are known?

512 unit features in 256 dimensions, 5 active a sample on average, strengths U(0, 1); all equally frequent (``uniform``) or
each 0.99 times as frequent as the one before (``decay``). The measure is MMCS: the mean over true features of the largest
cosine with a learned decoder row; 0.20 for a random dictionary. One JSON line a case; means over the seeds named in it.

    python benchmarks/superposition.py                      # all architectures, 3 seeds, both tests
    python benchmarks/superposition.py --peer-python ENV/bin/python   # the same data through sae-lens
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from saelens_peer import Peer
from toy_activations import BATCH, D_IN, STEPS, Superposition, mmcs

from helix_sae.sae import SaeConfig, parse_sae_config, train_saes

CONFIGS: dict[str, dict[str, Any]] = {
    "relu": {"l1_coefficient": 2e-3, "learning_rate": 1e-2, "sparsity_warmup_fraction": 0.3},
    "relu_tied": {"l1_coefficient": 3e-3},
    "topk": {"k": 5},
    "batchtopk": {"k": 5, "learning_rate": 2e-3},
    "matryoshka": {"k": 5},
    "jumprelu": {"l0_coefficient": 5e-3},
    "gated": {"l1_coefficient": 3e-3},
}


def ours(config: SaeConfig, frequencies: str, seed: int, steps: int | None) -> dict[str, float]:
    """Train one SAE; MMCS, measures on fresh samples, seconds."""
    data = Superposition(frequencies, seed, steps)
    start = time.perf_counter()
    fresh = Superposition(frequencies, seed, steps=5, stream=1)
    result = train_saes(data, {"a": config}, seed=seed, holdout=fresh, log_every=10**9)
    seconds = time.perf_counter() - start
    summary = next(iter(result.evaluations.values())).summary
    measures = {key: summary[key] for key in ("explained_variance", "l0", "dead_share")}
    return {
        "mmcs": mmcs(result.by_site()["toy"].W_dec.detach(), data.directions),
        **measures,
        "seconds": seconds,
    }


def untrained(frequencies: str) -> float:
    """MMCS of a random dictionary of the same size."""
    # Not the seed of the directions, which would be drawn again.
    random = torch.randn(4 * D_IN, D_IN, generator=torch.Generator().manual_seed(1_000_003))
    return mmcs(random, Superposition(frequencies, 0).directions)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architectures", nargs="+", default=list(CONFIGS), choices=list(CONFIGS))
    parser.add_argument("--frequencies", nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="other than 1,000 (uniform) and 1,500 (decay)")
    parser.add_argument("--set", default="{}", help="JSON object of settings that replace the defaults here")
    parser.add_argument("--peer-python", help="interpreter of an environment with sae-lens")
    options = parser.parse_args()
    peer = Peer(options.peer_python)
    for frequencies in options.frequencies:
        for name in options.architectures:
            values = {"architecture": name, **CONFIGS[name], **json.loads(options.set)}
            config = parse_sae_config(values)
            runs = [ours(config, frequencies, seed, options.steps) for seed in options.seeds]
            line: dict[str, Any] = {
                "benchmark": "superposition",
                "frequencies": frequencies,
                "steps": options.steps or STEPS[frequencies],
                "batch": BATCH,
                "config": values,
                "seeds": options.seeds,
                "untrained_mmcs": untrained(frequencies),
                **{key: sum(run[key] for run in runs) / len(runs) for key in runs[0]},
                "mmcs_by_seed": [run["mmcs"] for run in runs],
            }
            line["peer"] = peer.superposition(name, frequencies, options.seeds, line["steps"])
            print(json.dumps(line), flush=True)
    peer.close()


if __name__ == "__main__":
    main()
