"""What a run's artefacts depend on, as it is written beside each of them."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any, cast

from kedro.io.core import is_parameter
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from pydantic import BaseModel

from helix_sae.versions import Catalog

_RECORDED_PACKAGES = ("helix_sae", "helical", "kedro", "numpy", "pandas", "scipy", "torch")


def describe_run(run_params: Mapping[str, Any], pipeline: Pipeline, catalog: Catalog) -> dict[str, Any]:
    """Everything of a run that its artefacts depend on, as JSON values; its inputs apart."""
    names = sorted(name for name in pipeline.inputs() if is_parameter(name))
    parameters = {name: plain(catalog[name].load()) for name in names if name in catalog}
    return {
        "run_id": run_params.get("run_id"),
        "environment": run_params.get("env"),
        "pipelines": run_params.get("pipeline_names") or ["__default__"],
        "parameters": parameters,
        "seeds": dict(find_seeds(parameters)),
        "code": code_revision(str(run_params.get("project_path", "."))),
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in _RECORDED_PACKAGES},
    }


def parameters_of(node: Node, catalog: Catalog) -> dict[str, Any]:
    """Parameters that a node takes, by Kedro's names, as JSON values."""
    return {name: plain(catalog[name].load()) for name in node.inputs if is_parameter(name)}


def find_seeds(parameters: object, path: str = "") -> Iterable[tuple[str, int]]:
    """Every number called ``seed`` in nested parameters, with its path."""
    if isinstance(parameters, Mapping):
        for key, value in cast("Mapping[str, object]", parameters).items():
            here = f"{path}.{key}" if path else str(key)
            if str(key).removeprefix("params:").split(".")[-1] == "seed" and isinstance(value, int):
                yield here, value
            yield from find_seeds(value, here)


def code_revision(project_path: str) -> dict[str, Any]:
    """Commit of the project, and whether files differ from it; nulls outside a git repository."""
    commit = _git(project_path, "rev-parse", "HEAD")
    changed = _git(project_path, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": commit, "modified": None if changed is None else bool(changed)}


def _git(project_path: str, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", project_path, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def package_version(name: str) -> str | None:
    """Version of an installed package; None where it is not."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def plain(value: object) -> Any:
    """Parameters as JSON values; models by their fields."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in cast("list[object]", value)]
    return json.loads(json.dumps(value, default=str))
