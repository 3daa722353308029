"""A toy model whose activations can be told from the tokens alone, and tables for it."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from kedro.io.core import Version

from helix_sae.activations import ExtractionPlan, plan_extraction, stream_activations
from helix_sae.datasets.activations import ActivationsDataset
from helix_sae.mrna.tokens import TokenizedSequence

SITES = ("layers.0.mixer", "layers.2")
WIDTH = 5


def toy_table(n: int = 30, seed: int = 0, longest: int = 60) -> pd.DataFrame:
    """Random sequences, some with a coding region."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest, n)
    starts = [int(rng.integers(0, length)) if i % 3 else None for i, length in enumerate(lengths)]
    return pd.DataFrame(
        {
            "sequence_id": [f"s{seed}_{i}" for i in range(n)],
            "sequence": ["".join(rng.choice(list("ACGUN"), length)) for length in lengths],
            "cds_start": pd.array(starts, dtype="Int64"),
            "cds_end": pd.array([None] * n, dtype="Int64"),
        }
    )


def toy_activations(tokens: Sequence[TokenizedSequence], site: str, model: str) -> np.ndarray:
    """A row a token: causal, and different for each site and model."""
    offset = SITES.index(site) + 10 * len(model)
    rows = [np.cumsum(np.sin(t.ids[:, None] * (np.arange(WIDTH) + 1.0) + offset), axis=0) for t in tokens]
    return np.concatenate(rows).astype(np.float32)


def toy_compute(
    tokens: Sequence[TokenizedSequence], model: str = "m", log: Path | None = None, seconds: float = 0.0
) -> dict[str, np.ndarray]:
    """Activations of both sites; says in ``log`` which work was done, surviving a kill."""
    if log is not None:
        line = f"{len(tokens)} {sum(int(t.ids.sum()) for t in tokens)}\n"
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line.encode())
        os.close(descriptor)
    time.sleep(seconds)
    return {site: toy_activations(tokens, site, model) for site in SITES}


def toy_plan(
    table: pd.DataFrame, *, model: str = "m", shard_tokens: int = 200, **options: object
) -> ExtractionPlan:
    """A plan for the toy model; ``log`` and ``seconds`` go to its compute."""
    work = {name: options.pop(name) for name in ("log", "seconds") if name in options}
    return plan_extraction(
        table,
        fingerprint=f"fingerprint of {model}",
        sites=options.pop("sites", SITES),
        compute=partial(toy_compute, model=model, **work),
        shard_tokens=shard_tokens,
        **options,
    )


def save_version(root: str, version: str, plan: ExtractionPlan) -> None:
    """Save a plan as a version of the store (importable, for processes that get killed)."""
    ActivationsDataset(filepath=root, version=Version(None, version)).save(stream_activations(plan))


def die_at_rename(last: int) -> None:
    """Have this process killed when it is about to rename a file or folder for the ``last`` time, counted from 1."""
    renamed: list[str] = []
    rename = os.replace

    def rename_or_die(source: str, target: str) -> None:
        renamed.append(target)
        if len(renamed) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    os.replace = rename_or_die


def save_until_second_rename(root: str, version: str, plan: ExtractionPlan) -> None:
    """Save a plan, but be killed when the second of its files is written and not yet renamed."""
    os.cpu_count = lambda: 1  # one thread writes, one shard after another, however many cores there are
    die_at_rename(2)
    save_version(root, version, plan)


def save_until_a_file_is_long(root: str, version: str, plan: ExtractionPlan, n_bytes: int) -> None:
    """Save a plan, but be killed by the kernel in the middle of writing the first file of more than so many bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
    save_version(root, version, plan)


def files_of(root: Path) -> dict[str, bytes]:
    """Content of every file below a folder."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }
