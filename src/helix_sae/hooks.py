"""What happens around every run: versions are pinned, the lineage is checked, the engine is chosen, provenance is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io.core import is_parameter
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from helix_sae.engine import EngineParameters, set_engine
from helix_sae.errors import ConfigurationError
from helix_sae.memory import is_out_of_memory, memory_limit
from helix_sae.provenance import describe_run
from helix_sae.run_lineage import RunLineage
from helix_sae.runtime_parameters import check_runtime_parameters, settable_names
from helix_sae.storage import canonical_json, write_file
from helix_sae.unversioned import Outdated, is_unversioned, write_recipe
from helix_sae.versions import Catalog, pin_versions, provenance_path, versioned_dataset

ENGINE_PARAMETER = "params:engine"


class ProjectHooks:
    """The project's hooks; see the methods."""

    def __init__(self) -> None:
        self._catalog: Catalog | None = None
        self._lineage: RunLineage | None = None
        self._provenance: dict[str, Any] = {}
        self._engine_before: EngineParameters | None = None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Check the command line."""
        given = context.config_loader.runtime_params
        check_command_line(given, context.config_loader)
        set_globals(given, context.config_loader)

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: Catalog) -> None:
        """Check the inputs and that they belong together, pin all versions, and choose the engine."""
        _check_runner(str(run_params.get("runner", "")))
        pin_versions(pipeline, catalog)
        lineage = RunLineage(pipeline, catalog, run_params)
        if run_params.get("only_missing_outputs"):
            lineage.reuse()
        lineage.check()
        self._catalog, self._lineage = catalog, lineage
        self._provenance = describe_run(run_params, pipeline, catalog)
        self._provenance["run_inputs"] = {name: record.origin for name, record in lineage.inputs.items()}
        if ENGINE_PARAMETER in catalog:
            engine = catalog[ENGINE_PARAMETER].load()
            chosen = (
                engine if isinstance(engine, EngineParameters) else EngineParameters.model_validate(engine)
            )
            self._engine_before = set_engine(chosen)

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Check that what the run has made fits what it read."""
        if self._lineage is not None:
            self._lineage.check_node(node)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """Write what an artefact came from beside it: ``provenance.json``, hidden where there are no versions."""
        if self._catalog is None or self._lineage is None:
            return
        record = self._lineage.add_saved(node, dataset_name)
        saved = self._catalog[dataset_name]
        saved = saved.dataset if isinstance(saved, Outdated) else saved
        content = {
            **self._provenance,
            "dataset": dataset_name,
            "node": node.name,
            "inputs": {name: record.lineage.get(name, {}) for name in node.inputs if not is_parameter(name)},
            "lineage": record.lineage,
            "made_with": record.parameters,
        }
        if is_unversioned(saved):
            write_recipe(saved, self._lineage.recipes[dataset_name], content)
        elif record.origin and (dataset := versioned_dataset(saved)) is not None:
            version = record.origin["version"]
            whole = canonical_json({**content, "version": version, "origin": record.origin})
            write_file(cast("Any", dataset)._fs, provenance_path(dataset, version), whole)

    @hook_impl
    def on_node_error(self, error: Exception, node: Node) -> None:
        """Say what to make smaller where memory ran out."""
        if is_out_of_memory(error):
            raise memory_limit(error, node.name, self._provenance.get("parameters", {})) from error

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Put the engine back."""
        self._finish()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Put the engine back."""
        self._finish()

    def _finish(self) -> None:
        self._catalog = self._lineage = None
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
    settable = settable_names(source / name for name in environments) | set(config_loader["globals"])
    check_runtime_parameters(list(given), settable)


def set_globals(given: Mapping[str, Any], config_loader: Any) -> None:
    """Let ``--params`` set what ``globals.yml`` names, such as ``data_root``; Kedro alone reads them from files only."""
    named = {name: value for name, value in given.items() if name in config_loader["globals"]}
    if named:
        config_loader["globals"] = {**config_loader["globals"], **named}


def _check_runner(runner: str) -> None:
    """Refuse a runner whose nodes are in processes that know nothing of the run."""
    if "ParallelRunner" in runner:
        raise ConfigurationError(
            "ParallelRunner runs nodes in processes of their own, where what they make cannot be recorded."
            " Leave --runner out, or use ThreadRunner; work inside nodes is spread by the parameter `engine`."
        )
