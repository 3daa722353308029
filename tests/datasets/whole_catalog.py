"""Every entry of the catalog of ``conf/base``, with something to save; and saves that a full disk or a kill stops."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from kedro.config import OmegaConfigLoader
from kedro.framework.project import pipelines as registry
from kedro.framework.startup import bootstrap_project
from kedro.io import AbstractDataset, CatalogConfigResolver
from kedro.io.core import DatasetError
from scipy import sparse

from helix_sae import settings

PROJECT = Path(__file__).resolve().parents[2]
READ_ONLY = {
    "raw_sequences": "the user's",
    "probe_records": "the user's",
    "concept_intervals": "the user's",
    "feature_labels": "the user's",
    "model": "a reference",
    "simulated_demo": "in memory",
}
ROWS = 3_000


def entries(root: Path) -> dict[str, dict[str, Any]]:
    """Configuration of everything that the pipelines of the project read and write, below a folder."""
    os.environ["HELIX_SAE_TEST_ROOT"] = root.as_posix()
    bootstrap_project(PROJECT)
    loader = OmegaConfigLoader(str(PROJECT / "conf"), env="test", **settings.CONFIG_LOADER_ARGS)
    configuration = loader["catalog"]
    registry.set_requested(None)
    resolver = CatalogConfigResolver(configuration)
    names = set().union(*(pipeline.datasets() for pipeline in registry.values())) | {*configuration}
    names = {n.split("@")[0] for n in names if n != "parameters" and not n.startswith("params:")}
    return {
        name: configuration.get(name) or resolver.resolve_pattern(name)
        for name in sorted(names)
        if "{" not in name and name not in READ_ONLY
    }


def dataset(name: str, config: dict[str, Any], version: str | None, load: str | None = None) -> Any:
    """The dataset of an entry that saves one version and loads another, the latest when not given."""
    return AbstractDataset.from_config(name, dict(config), load_version=load, save_version=version)


def example(name: str, config: dict[str, Any]) -> Any:
    """Something that an entry can hold, of some tens of kilobytes."""
    kind = config["type"].rpartition(".")[2]
    return {
        "CsvTableDataset": lambda: table(name),
        "ParquetTableDataset": lambda: table(name),
        "FigureDataset": figure,
        "PlotlyDataset": plotly_figure,
        "JsonDataset": lambda: {"values": list(range(ROWS))},
        "TextDataset": lambda: "line of text\n" * ROWS,
        "PagesDataset": lambda: {"index.html": b"<h1>A page</h1>\n" * ROWS, "cards/0.js": b"0;\n" * ROWS},
        "HtmlDataset": lambda: "<h1>A page</h1><p>that says something</p>\n" * ROWS,
        "StructureDataset": structure,
        "SequenceCodesDataset": codes,
        "SaeCheckpointsDataset": autoencoders,
        "ActivationsDataset": activations,
        "TokenCodesDataset": token_codes,
        "SequenceFilesDataset": lambda: [{"sequence": "ACGT" * 20}] * ROWS,
        "CheckpointDataset": model,
    }[kind]()


def table(name: str) -> pd.DataFrame:
    from helix_sae.tables import SCHEMAS

    if name in SCHEMAS:
        return SCHEMAS[name].example(ROWS)
    rng = np.random.default_rng(0)
    return pd.DataFrame({"site": "layers.0", "feature": np.arange(ROWS), "value": rng.normal(size=ROWS)})


@cache
def figure() -> Any:
    from matplotlib.figure import Figure

    made = Figure()
    made.subplots().imshow(np.random.default_rng(0).normal(size=(80, 80)))
    return made


@cache
def plotly_figure() -> Any:
    import plotly.graph_objects as go

    return go.Figure(go.Scatter(y=np.random.default_rng(0).normal(size=ROWS)))


def structure() -> Any:
    return {
        "codes": sparse.random_array((300, 50), density=0.2, format="csr", random_state=0),
        "t": table(""),
    }


@cache
def codes() -> Any:
    from anndata import AnnData

    return {
        "layers.0": AnnData(
            sparse.random_array((300, 200), density=0.5, format="csr", random_state=0).astype(np.float32)
        )
    }


@cache
def autoencoders() -> Any:
    import torch

    from helix_sae.sae import TopKConfig
    from helix_sae.sae.registry import random_autoencoder
    from helix_sae.sae.scaling import InputScaling

    config = TopKConfig(k=4, expansion_factor=4).resolve(32)
    return {"layers.0": random_autoencoder(config, InputScaling(torch.zeros(32), 1.0), 0)}


def activations() -> Any:
    from activation_toys import toy_plan, toy_table

    from helix_sae.activations import stream_activations

    # Other sequences each time: a version would find the shards of the one before.
    activations.calls = getattr(activations, "calls", 0) + 1
    plan = toy_plan(toy_table(150, seed=activations.calls), shard_tokens=10**6)
    return stream_activations(plan)


def token_codes() -> Any:
    import torch
    from activation_toys import SITES, WIDTH

    from helix_sae.codes import CodesPlan
    from helix_sae.sae import TopKConfig
    from helix_sae.sae.registry import random_autoencoder
    from helix_sae.sae.scaling import InputScaling

    config = TopKConfig(k=2, expansion_factor=3).resolve(WIDTH)
    sae = random_autoencoder(config, InputScaling(torch.zeros(WIDTH), 1.0), 0)
    return CodesPlan(activations(), dict.fromkeys(SITES, sae))


@cache
def model() -> Any:
    from helix_sae.models.registry import handle_for, open_model

    return open_model(handle_for(PROJECT / "data" / "06_models" / "helix_mini", device="cpu"))


def read(loaded: Any) -> None:
    """Read what is only opened."""
    if hasattr(loaded, "check_finite"):
        loaded.check_finite()
        loaded.all_rows()
    for codes in loaded.values() if hasattr(loaded, "store") else ():
        codes.pooled()
        assert codes.codes.shape == codes.shape


def files(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if path.is_file()}


def longest(paths: set[Path]) -> int:
    return max(path.stat().st_size for path in paths)


def killed(action: Callable[[], None], n_bytes: int) -> int:
    """Signal by which a process ends that does something and may write no file longer than this."""
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
            action()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def is_versioned(config: dict[str, Any]) -> bool:
    return bool(config.get("versioned"))


def try_kills(root: Path) -> Iterator[tuple[str, Any]]:
    """For each entry: how a save was killed in the middle, and what is there afterwards."""
    for name, config in entries(root).items():
        before = files(root)
        dataset(name, config, "v1").save(example(name, config))
        written = files(root) - before
        limit = longest(written) // 2
        data = example(name, config)
        status = killed(lambda n=name, c=config, d=data: dataset(n, c, "v2").save(d), limit)
        again = dataset(name, config, None)
        version = again.resolve_load_version() if is_versioned(config) else None
        read(again.load())
        yield name, [status, version]
        dataset(name, config, "v2").save(data)  # a rerun goes through
        last = dataset(name, config, None)
        assert not is_versioned(config) or last.resolve_load_version() == "v2"
        read(last.load())


def try_full_disk(root: Path) -> Iterator[tuple[str, Any]]:
    """On a disk of its own at ``root``: what a save on a full and on a read-only disk says, and what is left."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "none", str(root)], check=True)
    described = entries(root)
    examples = {name: (example(name, config), example(name, config)) for name, config in described.items()}
    for name, config in described.items():
        dataset(name, config, "v1").save(examples[name][0])
    kept = files(root)
    filler = root / "filler"
    said: dict[str, list[str]] = {name: [] for name in described}
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(filler, filler.stat().st_size - 8192)  # what is short fits
    for name, config in described.items():
        said[name].append(refusal(name, config, examples[name][1]))
    assert files(root) - {filler} == kept, files(root) - {filler} ^ kept
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
    for name, config in described.items():
        said[name].append(refusal(name, config, examples[name][1]))
        read(dataset(name, config, None).load())
    yield from said.items()


def refusal(name: str, config: dict[str, Any], data: Any) -> str:
    try:
        dataset(name, config, "v2").save(data)
    except DatasetError as error:
        return f"{type(error.__cause__).__name__}: {error}"
    return "saved"


if __name__ == "__main__":
    sys.path[:0] = [str(PROJECT / "tests" / "activations")]
    what, folder = sys.argv[1:]
    print(json.dumps(dict({"kills": try_kills, "full": try_full_disk}[what](Path(folder)))))
