"""Trainings that are killed by the kernel at ten random moments and run again; one JSON object on the standard output.

A process of its own, which forks before torch has started any thread: each training is a child that SIGKILL can end
anywhere, also in the middle of writing its state.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from sae_toys import CONFIGS, superposition

from helix_sae.sae import ArrayBatches, Scratch, train_saes

CHOSEN = ("topk", "jumprelu", "relu")


def train(scratch: Path, answer: Path | None) -> None:
    """Train three architectures, their state saved after every step; put a hash of the result into a file."""
    batches = ArrayBatches({"layers.0": superposition(1000)}, 64, seed=3, epochs=3)
    settings = {"calibration_tokens": 1, "log_every": 3, "scratch": Scratch(scratch, "toy", every_steps=1)}
    result = train_saes(batches, {name: CONFIGS[name] for name in CHOSEN}, **settings)
    digest = hashlib.sha256(result.history.to_csv().encode())
    for key in sorted(result.saes):
        for name, value in result.saes[key].named_parameters():
            digest.update(f"{key} {name}".encode() + value.detach().numpy().tobytes())
    if answer is not None:
        answer.write_text(digest.hexdigest())


def in_a_child(scratch: Path, answer: Path, kill_after: float | None) -> bool:
    """Run a training in a child; whether it was killed before it ended."""
    child = os.fork()
    if child == 0:
        try:
            train(scratch, answer)
        finally:
            os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    train(folder / "first", None)  # what is imported and compiled on the way is then there in every child
    began = time.perf_counter()
    in_a_child(folder / "undisturbed", folder / "expected", None)
    seconds = time.perf_counter() - began
    rng, killed, left, found = random.Random(0), 0, 0, []
    for i in range(10):
        scratch, answer = folder / f"scratch{i}", folder / f"answer{i}"
        # Where it comes to its end, as it was timed on a busier machine, again and sooner.
        killed += any(
            in_a_child(scratch, answer, rng.uniform(0.05, 0.9) * 0.7**times * seconds) for times in range(6)
        )
        left += any(scratch.rglob("state.safetensors"))
        in_a_child(scratch, answer, rng.uniform(0.05, 0.5) * seconds)
        in_a_child(scratch, answer, None)
        found.append(answer.read_text())
        assert not any(scratch.iterdir()), "nothing stays of a state, finished or half-written"
    expected = (folder / "expected").read_text()
    print(json.dumps({"expected": expected, "found": found, "killed": killed, "states_left": left}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
