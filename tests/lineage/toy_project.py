"""A small pipeline over the project's hooks: one file, an autoencoder of it, codes, and two analyses that are joined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline, node
from kedro.runner import SequentialRunner

from helix_sae.hooks import ProjectHooks

STORED = ("table", "sae", "quality", "codes", "associations", "effects", "report")


def tabulate(raw: str) -> dict[str, Any]:
    return {"table": raw}


def train(table: dict[str, Any], parameters: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    sae = {"of": table, "seed": parameters["seed"]}
    return sae, {"quality_of": sae}


def encode(table: dict[str, Any], sae: dict[str, Any]) -> dict[str, Any]:
    return {"of": table, "by": sae}


def associate(codes: dict[str, Any], table: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
    return {"associations": codes, "with": table, **parameters}


def intervene(sae: dict[str, Any], table: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
    return {"effects": sae, "on": table, **parameters}


def summarise(codes: dict[str, Any], associations: dict[str, Any]) -> dict[str, Any]:
    return {"codes": codes, "associations": associations}


def report(
    summary: dict[str, Any], quality: dict[str, Any], effects: dict[str, Any], target: str
) -> list[Any]:
    return [summary, quality, effects, target]


PIPELINES = {
    "ingestion": Pipeline([node(tabulate, "raw", "table", name="tabulate")]),
    "training": Pipeline(
        [
            node(train, ["table", "params:training"], ["sae", "quality"], name="train"),
            node(encode, ["table", "sae"], "codes", name="encode"),
        ]
    ),
    "correlation": Pipeline(
        [node(associate, ["codes", "table", "params:correlation"], "associations", name="associate")]
    ),
    "causal": Pipeline([node(intervene, ["sae", "table", "params:causal"], "effects", name="intervene")]),
    "reporting": Pipeline(
        [
            node(summarise, ["codes", "associations"], "summary", name="summarise"),
            node(report, ["summary", "quality", "effects", "params:causal.target"], "report", name="report"),
        ]
    ),
}
PARAMETERS: dict[str, Any] = {
    "training": {"seed": 1},
    "correlation": {"alpha": 0.05},
    "causal": {"target": "mrl"},
}


def toy_catalog(
    root: Path,
    version: str,
    load_versions: dict[str, str] | None = None,
    unversioned: Sequence[str] = (),
    **parameters: dict[str, Any],
) -> DataCatalog:
    """Catalog of a run of this version; some datasets have none."""
    config: dict[str, Any] = {
        name: {
            "type": "helix_sae.datasets.files.JsonDataset",
            "filepath": f"{root}/{name}.json",
            "versioned": name not in unversioned,
        }
        for name in STORED
    }
    config["raw"] = {"type": "text.TextDataset", "filepath": f"{root}/raw.txt"}
    catalog = DataCatalog.from_config(config, save_version=version, load_versions=load_versions)
    for name, values in {**PARAMETERS, **parameters}.items():
        catalog[f"params:{name}"] = values
        for key, value in values.items():
            catalog[f"params:{name}.{key}"] = value
    return catalog


def run_toy(
    root: Path,
    version: str,
    *names: str,
    load_versions: dict[str, str] | None = None,
    only_missing: bool = False,
    unversioned: Sequence[str] = (),
    pipeline: Pipeline | None = None,
    **parameters: dict[str, Any],
) -> list[str]:
    """What a session does around its runner.

    Returns
    -------
    list of str
        Names of the nodes that ran.
    """
    chosen = pipeline or sum((PIPELINES[name] for name in names or PIPELINES), Pipeline([]))
    catalog = toy_catalog(root, version, load_versions, unversioned, **parameters)
    hooks = _create_hook_manager()
    hooks.register(ProjectHooks())
    ran: list[str] = []
    hooks.register(_Watcher(ran))
    params = {
        "run_id": version,
        "env": "test",
        "pipeline_names": list(names),
        "only_missing_outputs": only_missing,
    }
    hooks.hook.before_pipeline_run(run_params=params, pipeline=chosen, catalog=catalog)
    try:
        SequentialRunner().run(chosen, catalog, hooks, run_id=version, only_missing_outputs=only_missing)
    finally:
        hooks.hook.on_pipeline_error(error=None, run_params=params, pipeline=chosen, catalog=catalog)
    return ran


class _Watcher:
    def __init__(self, ran: list[str]) -> None:
        self.ran = ran

    from kedro.framework.hooks import hook_impl

    @hook_impl
    def after_node_run(self, node: Any) -> None:
        self.ran.append(node.name)
