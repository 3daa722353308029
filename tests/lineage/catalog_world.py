"""The project's own pipelines over its own catalog, with stand-ins for what the nodes compute.

Nodes, inputs, outputs, parameters and datasets are those of the project. What a stand-in makes is small, of the kind that the
dataset of the output holds, and carries a text that says what it was made from: ``raw=A;seed=1``. Two values of a name
(``seed=1|2``) are a wrong join. Figures carry no text.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
import whole_catalog
from activation_toys import SITES, WIDTH, toy_plan, toy_table
from anndata import AnnData
from kedro.config import OmegaConfigLoader
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.framework.project import pipelines as registry
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog
from kedro.io.core import is_parameter
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro.runner import SequentialRunner
from matplotlib.figure import Figure
from scipy import sparse

from helix_sae import settings
from helix_sae.activations import stream_activations
from helix_sae.codes import CodesPlan, StoredCodes
from helix_sae.hooks import ProjectHooks
from helix_sae.sae import TopKConfig
from helix_sae.sae.registry import random_autoencoder
from helix_sae.sae.scaling import InputScaling

NAMES = ("ingestion", "extraction", "sae_training", "correlation", "causal_acdc", "reporting")
VARIED = {
    "seed": ("sae_training.seed", [0, 0, 1]),
    "alpha": ("correlation.alpha", [0.05, 0.05, 0.1]),
    "q": ("causal_acdc.effects.q", [0.05, 0.05, 0.1]),
}
"""What runs give on their command line: under the name that the texts have for it, and the values."""

Made = dict[str, set[str]]


def parse(text: str) -> Made:
    """What a text says, by name."""
    return {
        part.partition("=")[0]: set(part.partition("=")[2].split("|")) for part in text.split(";") if part
    }


def merge(made: Sequence[Made]) -> Made:
    """What is made from several things."""
    return {
        name: set().union(*(m.get(name, set()) for m in made))
        for name in sorted({n for m in made for n in m})
    }


def text_of(made: Made) -> str:
    return ";".join(f"{name}={'|'.join(sorted(values))}" for name, values in sorted(made.items()))


def is_joined_wrongly(made: Made) -> bool:
    return any(len(values) > 1 for values in made.values())


class World:
    """The project with a root of its own.

    Parameters
    ----------
    root : Path
        Set as the test environment's root.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._entries = whole_catalog.entries(root)
        self.kinds = {name: config["type"].rpartition(".")[2] for name, config in self._entries.items()}
        bootstrap_project(whole_catalog.PROJECT)
        registry.set_requested(None)
        for name in (
            "designed_pairs",
            "causal_truth",
        ):  # of the shipped demo, which a run reads and never makes
            whole_catalog.dataset(name, self._entries[name], None).save(whole_catalog.table(name))
        self.pipelines = {name: Pipeline([self._stand_in(n) for n in registry[name].nodes]) for name in NAMES}
        made = set().union(*(pipeline.all_outputs() for pipeline in self.pipelines.values()))
        self.stored = sorted(made & self.kinds.keys())
        self.paths = {name: Path(self._entries[name]["filepath"]) for name in self.stored}
        loader = OmegaConfigLoader(
            str(whole_catalog.PROJECT / "conf"), env="test", **settings.CONFIG_LOADER_ARGS
        )
        self._catalog_config, self._parameters = loader["catalog"], loader["parameters"]
        shutil.copytree(
            whole_catalog.PROJECT / "data" / "06_models" / "helix_mini", root / "06_models" / "helix_mini"
        )

    def write_raw(self, letter: str) -> None:
        """Another input: one record whose identifier is the letter."""
        folder = self.root / "01_raw" / "demo"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mRNA_dataset_chunk_0000.json").write_text(
            json.dumps([{"id": letter, "sequence": "ACGU" * 5}])
        )

    def run(
        self,
        version: str,
        names: Sequence[str],
        pins: Mapping[str, str],
        only_missing: bool,
        parameters: Mapping[str, Any],
    ) -> None:
        """What a session does around its runner."""
        chosen = sum((self.pipelines[name] for name in names or NAMES), Pipeline([]))
        catalog = self._catalog(version, pins, parameters)
        hooks = _create_hook_manager()
        hooks.register(ProjectHooks())
        params = {
            "run_id": version, "env": "test", "pipeline_names": list(names), "runtime_params": dict(parameters),
            "only_missing_outputs": only_missing, "project_path": str(self.root),
        }  # fmt: skip
        hooks.hook.before_pipeline_run(run_params=params, pipeline=chosen, catalog=catalog)
        SequentialRunner().run(chosen, catalog, hooks, run_id=version, only_missing_outputs=only_missing)

    def load(self, name: str, version: str) -> Made | None:
        """What a version says that it was made from; None for a figure."""
        return says(whole_catalog.dataset(name, self._entries[name], None, version).load())

    def taken(self, name: str) -> set[str]:
        """Which of the varied parameters a pipeline takes."""
        return {short for node in self.pipelines[name].nodes for short in _taken(node)}

    def _catalog(self, version: str, pins: Mapping[str, str], given: Mapping[str, Any]) -> DataCatalog:
        config = copy.deepcopy(self._catalog_config)
        catalog = DataCatalog.from_config(config, save_version=version, load_versions=dict(pins))
        parameters = copy.deepcopy(self._parameters)
        for path, value in given.items():
            *groups, last = path.split(".")
            inner = parameters
            for group in groups:
                inner = inner[group]
            inner[last] = value
        for name, value in _flat(parameters):
            catalog[f"params:{name}"] = value
        return catalog

    def _stand_in(self, node: Node) -> Node:
        kinds = {name: self.kinds.get(name, "") for name in node.outputs}
        return node._copy(func=partial(stand_in, node, kinds))


def _flat(values: Mapping[str, Any], path: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        found.append((f"{path}{key}", value))
        if isinstance(value, Mapping):
            found += _flat(value, f"{path}{key}.")
    return found


def _taken(node: Node) -> dict[str, str]:
    """Varied parameters that a node takes, with the input that holds each."""
    taken: dict[str, str] = {}
    for short, (path, _) in VARIED.items():
        for name in filter(is_parameter, node.inputs):
            inner = name.removeprefix("params:")
            if path == inner or path.startswith(f"{inner}."):
                taken[short] = name
    return taken


def stand_in(node: Node, kinds: Mapping[str, str], *args: Any, **named: Any) -> Any:
    """What a node makes: things that say what they were made from."""
    values = dict(zip(node.inputs, [*args, *named.values()], strict=True))
    made = [m for name, v in values.items() if not is_parameter(name) and (m := says(v)) is not None]
    for short, name in _taken(node).items():
        value, path = values[name], VARIED[short][0]
        for key in path.removeprefix(name.removeprefix("params:")).split("."):
            value = value[key] if key else value
        made.append({short: {str(value)}})
    text = text_of(merge(made))
    outputs = {name: MAKERS[kind](name, text) for name, kind in kinds.items()}
    if isinstance(node._outputs, dict):
        return {key: outputs[name] for key, name in node._outputs.items()}
    return outputs[node._outputs] if isinstance(node._outputs, str) else [outputs[n] for n in node._outputs]


def says(value: Any) -> Made | None:
    """The text that a value carries, read; None where it carries none."""
    if isinstance(value, pd.DataFrame):
        return parse(str(value["made_from"].iloc[0])) if "made_from" in value else None
    if isinstance(value, StoredCodes):
        return parse(value.store.sequence_ids[0].rpartition(" ")[0])
    if isinstance(value, str):
        return parse(value.partition("made from ")[2].partition("<")[0])
    if isinstance(value, Mapping):
        if "made_from" in value:
            return parse(value["made_from"])
        if "index.html" in value:
            return says(value["index.html"].decode())
        return says(next(iter(value.values()))) if value else None
    if isinstance(value, go.Figure):
        return says(value.layout.title.text)
    if isinstance(value, AnnData):
        return parse(value.obs_names[0].rpartition(" ")[0])
    if hasattr(value, "records"):  # as they were read; there are none where the user gives no further ones
        return {"raw": {str(record.values["id"]) for record in value.records}} if value.records else None
    if hasattr(value, "origin"):  # an autoencoder
        return parse(value.origin.get("made_from", ""))
    if hasattr(value, "sequence_ids"):
        return parse(str(value.sequence_ids[0]).rpartition(" ")[0])
    return None


def _table(name: str, text: str) -> pd.DataFrame:
    from helix_sae.tables import SCHEMAS

    table = SCHEMAS[name].example(5) if name in SCHEMAS else pd.DataFrame({"value": np.arange(5.0)})
    return table.assign(made_from=text)


def _autoencoders(name: str, text: str) -> Any:
    config = TopKConfig(k=2, expansion_factor=1).resolve(8)
    made = random_autoencoder(config, InputScaling(torch.zeros(8), 1.0), 0)
    made.origin = {"made_from": text}
    return {"layers.0": made}


def _activations(name: str, text: str) -> Any:
    table = toy_table(4)
    table["sequence_id"] = [f"{text} {i}" for i in range(4)]
    return stream_activations(toy_plan(table))


def _token_codes(name: str, text: str) -> Any:
    config = TopKConfig(k=2, expansion_factor=1).resolve(WIDTH)
    sae = random_autoencoder(config, InputScaling(torch.zeros(WIDTH), 1.0), 0)
    return CodesPlan(_activations(name, text), dict.fromkeys(SITES, sae))


def _codes(name: str, text: str) -> Any:
    codes = AnnData(sparse.random_array((3, 4), density=0.5, format="csr", random_state=0).astype(np.float32))
    codes.obs_names = [f"{text} {i}" for i in range(3)]
    return {"layers.0": codes}


def _figure(name: str, text: str) -> Any:
    return Figure(figsize=(1, 1))


def _plotly(name: str, text: str) -> Any:
    return go.Figure(layout={"title": {"text": f"made from {text}"}})


def _document(name: str, text: str) -> Any:
    return {"made_from": text}


MAKERS: dict[str, Callable[[str, str], Any]] = {
    "CsvTableDataset": _table,
    "ParquetTableDataset": _table,
    "FigureDataset": _figure,
    "PlotlyDataset": _plotly,
    "JsonDataset": _document,
    "TextDataset": lambda name, text: f"made from {text}",
    "HtmlDataset": lambda name, text: f"<p>made from {text}</p>",
    "StructureDataset": _document,
    "SequenceCodesDataset": _codes,
    "SaeCheckpointsDataset": _autoencoders,
    "ActivationsDataset": _activations,
    "TokenCodesDataset": _token_codes,
    "PagesDataset": lambda name, text: {"index.html": f"<p>made from {text}</p>".encode()},
    "": _document,
}
