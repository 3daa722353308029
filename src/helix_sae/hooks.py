"""What happens around every run: versions are pinned, the engine is chosen, provenance is written."""

from __future__ import annotations

import json
import logging
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import AbstractDataset, AbstractVersionedDataset, CatalogProtocol, DatasetError, MemoryDataset
from kedro.io.core import Version, VersionNotFoundError, get_filepath_str, is_parameter
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from pydantic import BaseModel

from helix_sae.engine import EngineParameters, set_engine
from helix_sae.errors import StoreError
from helix_sae.left_out import TOLERANT, LeftOut
from helix_sae.runtime_parameters import check_runtime_parameters, settable_names
from helix_sae.storage import canonical_json, write_file

LOGGER = logging.getLogger(__name__)

PROVENANCE = "provenance.json"
ENGINE_PARAMETER = "params:engine"
_RECORDED_PACKAGES = ("helix_sae", "helical", "kedro", "numpy", "pandas", "scipy", "torch")

Catalog = CatalogProtocol[Any, Any]


class ProjectHooks:
    """The project's hooks; see the methods."""

    def __init__(self) -> None:
        self._catalog: Catalog | None = None
        self._provenance: dict[str, Any] = {}
        self._engine_before: EngineParameters | None = None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Check the command line."""
        check_command_line(context.config_loader.runtime_params, context.config_loader)

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: Catalog) -> None:
        """Check the inputs, pin all versions, and choose the engine."""
        if run_params.get("only_missing_outputs"):
            # Kedro then asks whether the latest version of an output exists: a pinned one never would.
            LOGGER.info("Versions are not pinned with --only-missing-outputs.")
        else:
            pin_versions(pipeline, catalog)
        self._catalog = catalog
        self._provenance = describe_run(run_params, pipeline, catalog)
        if ENGINE_PARAMETER in catalog:
            engine = catalog[ENGINE_PARAMETER].load()
            chosen = (
                engine if isinstance(engine, EngineParameters) else EngineParameters.model_validate(engine)
            )
            self._engine_before = set_engine(chosen)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """Write ``provenance.json`` beside a versioned artefact."""
        if self._catalog is None or dataset_name not in self._catalog:
            return
        dataset = versioned_dataset(self._catalog[dataset_name])
        if dataset is None:
            return
        version = cast("str", dataset.resolve_save_version())
        folder = cast("Any", dataset)._filepath / version
        content = {
            **self._provenance,
            "dataset": dataset_name,
            "version": version,
            "node": node.name,
            "inputs": {
                name: _version_of(self._catalog, name) for name in node.inputs if not is_parameter(name)
            },
        }
        fs, protocol = cast("Any", dataset)._fs, cast("Any", dataset)._protocol
        saved = cast("Any", dataset)._get_versioned_path(version)
        if not fs.exists(get_filepath_str(saved, protocol)):
            return  # activations that are computed when they are read leave nothing to be described
        write_file(fs, f"{get_filepath_str(folder, protocol)}/{PROVENANCE}", canonical_json(content))

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Put the engine back."""
        self._finish()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Put the engine back."""
        self._finish()

    def _finish(self) -> None:
        self._catalog = None
        if self._engine_before is not None:
            set_engine(self._engine_before)
            self._engine_before = None


def check_command_line(given: Mapping[str, Any], config_loader: Any) -> None:
    """Make sure that ``--params`` names nothing that would be passed over in silence.

    Raises
    ------
    ConfigurationError
        If a name can only be set elsewhere, or is not known at all.
    """
    source = Path(config_loader.conf_source)
    if not given or not source.is_dir():  # an archive or a URL is not looked through
        return
    environments = (config_loader.base_env, config_loader.env or config_loader.default_run_env)
    settable = settable_names(source / name for name in environments)
    check_runtime_parameters(list(given), settable, list(config_loader["globals"]))


def pin_versions(pipeline: Pipeline, catalog: Catalog) -> dict[str, str]:
    """Fix the version of each versioned dataset of a run before it begins.

    An output is saved as, and loaded again from, the run's own version; an input that no ``--load-versions`` names is
    loaded from what is the latest version now. Kedro alone resolves "latest" at each load, so that of two runs at
    once one may read what the other one writes.

    Returns
    -------
    dict
        Version of each versioned input.

    Raises
    ------
    StoreError
        If an input is not there at all; it lists all that are missing.
    """
    for name in sorted(name for node in pipeline.nodes for name in node.outputs):
        dataset = versioned_dataset(catalog[name]) if name in catalog else None
        if dataset is not None:
            save = cast("str", dataset.resolve_save_version())
            _pin(dataset, Version(_pinned_load(dataset) or save, save))
    inputs: dict[str, str] = {}
    missing: list[str] = []
    for name in sorted(name for name in pipeline.inputs() if not is_parameter(name) and name in catalog):
        if _only_tolerated(name, pipeline) and not _is_there(catalog[name]):
            maker = f"`kedro registry describe` shows which pipeline makes {name}"
            catalog[name] = MemoryDataset(LeftOut(name, f"{name} has not been made yet ({maker})."))
            continue
        dataset = versioned_dataset(catalog[name])
        try:
            if dataset is not None:
                inputs[name] = cast("str", dataset.resolve_load_version())
                _pin(dataset, Version(inputs[name], dataset.resolve_save_version()))
            if _tells_existence(catalog[name]) and not catalog[name].exists():
                missing.append(f"  {name}: {_shown_path(catalog[name])}")
        except VersionNotFoundError:
            missing.append(f"  {name}: no version at {_shown_path(catalog[name])}")
    if missing:
        raise StoreError(
            "The run needs inputs that are not there:\n"
            + "\n".join(missing)
            + "\nRun the pipelines that make them "
            "first (`kedro registry describe` shows which), or correct the paths in the catalog."
        )
    return inputs


def _only_tolerated(name: str, pipeline: Pipeline) -> bool:
    """Whether all nodes that read a dataset make do without it."""
    readers = [node for node in pipeline.nodes if name in node.inputs]
    return all(TOLERANT in node.tags for node in readers)


def _is_there(dataset: AbstractDataset[Any, Any]) -> bool:
    try:
        return dataset.exists() if _tells_existence(dataset) else True
    except (VersionNotFoundError, DatasetError):
        return False


def describe_run(run_params: Mapping[str, Any], pipeline: Pipeline, catalog: Catalog) -> dict[str, Any]:
    """Everything of a run that its artefacts depend on, as JSON values."""
    names = sorted(name for name in pipeline.inputs() if is_parameter(name))
    parameters = {name: _plain(catalog[name].load()) for name in names if name in catalog}
    return {
        "run_id": run_params.get("run_id"),
        "environment": run_params.get("env"),
        "pipelines": run_params.get("pipeline_names") or ["__default__"],
        "run_inputs": {
            name: _version_of(catalog, name) for name in sorted(pipeline.inputs()) if not is_parameter(name)
        },
        "parameters": parameters,
        "seeds": dict(find_seeds(parameters)),
        "code": code_revision(str(run_params.get("project_path", "."))),
        "python": platform.python_version(),
        "packages": {name: _package_version(name) for name in _RECORDED_PACKAGES},
    }


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


def _package_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _plain(value: object) -> Any:
    """Parameters as JSON values; models by their fields."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in cast("list[object]", value)]
    return json.loads(json.dumps(value, default=str))


def versioned_dataset(dataset: AbstractDataset[Any, Any]) -> AbstractVersionedDataset[Any, Any] | None:
    """The dataset, or the one that a cache wraps, if it is versioned."""
    inner = getattr(dataset, "_dataset", dataset)
    is_versioned = isinstance(inner, AbstractVersionedDataset) and inner._version is not None  # pyright: ignore[reportPrivateUsage]
    return inner if is_versioned else None  # pyright: ignore[reportReturnType]


def _pinned_load(dataset: AbstractVersionedDataset[Any, Any]) -> str | None:
    version = cast("Any", dataset)._version
    return None if version is None else version.load


def _pin(dataset: AbstractVersionedDataset[Any, Any], version: Version) -> None:
    cast("Any", dataset)._version = version


def _version_of(catalog: Catalog, name: str) -> str | None:
    """Version that a run loads a dataset from; None if it has none."""
    dataset = versioned_dataset(catalog[name]) if name in catalog else None
    try:
        return None if dataset is None else dataset.resolve_load_version()
    except (DatasetError, OSError):
        return None


def _tells_existence(dataset: AbstractDataset[Any, Any]) -> bool:
    return type(dataset)._exists is not AbstractDataset._exists  # pyright: ignore[reportPrivateUsage]


def _shown_path(dataset: AbstractDataset[Any, Any]) -> str:
    return str(getattr(dataset, "_filepath", None) or dataset)
