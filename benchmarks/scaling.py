"""Memory and time of an extraction against the size of its corpus: both have to stay flat.

Corpora of random sequences with the same distribution of lengths, ten times as many in the second as in the first, go
through the shipped ``helix_mini`` into a store on this disk, each in a process of its own whose peak memory the system
reports. The small one runs before and after the large one, so that a machine whose pace drifts is seen. One JSON line a
run, and one that compares them:

    python benchmarks/scaling.py

``peak_memory_ratio`` has to be at most 1.3, ``time_per_token_ratio`` within 15 % of 1.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

PROJECT = Path(__file__).resolve().parents[1]
MODEL = PROJECT / "data" / "06_models" / "helix_mini"


def measure(n_sequences: int, shortest: int, longest: int, model_path: Path) -> dict[str, Any]:
    """Extract in this process; its peak memory includes Python, torch and the model."""
    from extraction import random_table

    from helix_sae.activations import plan_extraction, save_activations, stream_activations
    from helix_sae.models.extraction import extract_activations
    from helix_sae.models.registry import handle_for, open_model

    handle = handle_for(model_path, device="cpu")
    sites = open_model(handle).default_sites
    table = random_table(n_sequences, shortest, longest)
    compute = partial(extract_activations, handle=handle, sites=sites)
    plan = plan_extraction(table, fingerprint=handle.fingerprint, sites=sites, compute=compute)
    before = peak_memory()
    with tempfile.TemporaryDirectory(prefix="helix-sae-") as folder:
        began = time.perf_counter()
        save_activations(stream_activations(plan), folder, f"{folder}/v/activations")
        seconds = time.perf_counter() - began
        n_bytes = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    n_tokens = sum(spec.n_tokens for spec in plan.shards)
    return {
        "sequences": n_sequences,
        "tokens": n_tokens,
        "shards": len(plan.shards),
        "stored_megabytes": n_bytes / 1e6,
        "seconds": seconds,
        "tokens_per_second": n_tokens / seconds,
        "microseconds_per_token": 1e6 * seconds / n_tokens,
        "peak_memory_megabytes": peak_memory() / 1e6,
        "memory_before_megabytes": before / 1e6,
    }


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def in_a_process(n_sequences: int, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", str(n_sequences)]
    for name in ("shortest", "longest", "threads", "model"):
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=1_000, help="of the small corpus")
    parser.add_argument("--times", type=int, default=10, help="how many times as many the large one has")
    parser.add_argument("--shortest", type=int, default=50)
    parser.add_argument("--longest", type=int, default=150)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        print(json.dumps(measure(options.measure, options.shortest, options.longest, options.model)))
        return
    common = {"benchmark": "scaling", "torch": torch.__version__, "threads": options.threads}
    sizes = (options.sequences, options.times * options.sequences, options.sequences)
    runs: list[dict[str, Any]] = []
    for size in sizes:
        runs.append(in_a_process(size, options))
        print(json.dumps({**common, "case": "run", **runs[-1]}), flush=True)
    small = (runs[0], runs[2])
    pace = sum(run["microseconds_per_token"] for run in small) / 2
    comparison = {
        "case": "comparison",
        "sequences": list(sizes[:2]),
        "peak_memory_ratio": runs[1]["peak_memory_megabytes"]
        / min(r["peak_memory_megabytes"] for r in small),
        "time_per_token_ratio": runs[1]["microseconds_per_token"] / pace,
        "drift_of_the_machine": runs[2]["microseconds_per_token"] / runs[0]["microseconds_per_token"],
    }
    print(json.dumps({**common, **comparison}), flush=True)


if __name__ == "__main__":
    main()
