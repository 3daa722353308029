"""Hooks around a run: pinned versions, inputs that are not there, the engine, provenance."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kedro.config import OmegaConfigLoader
from kedro.io import DataCatalog, Version
from kedro.pipeline import Pipeline, node
from kedro.runner import SequentialRunner
from kedro_datasets.json import JSONDataset
from pluggy import PluginManager
from pydantic import BaseModel

from helix_sae.engine import EngineParameters, current_engine
from helix_sae.errors import ConfigurationError, StoreError
from helix_sae.hooks import ProjectHooks, check_command_line, set_globals
from helix_sae.provenance import code_revision, describe_run, find_seeds
from helix_sae.versions import pin_versions


class Settings(BaseModel):
    """Parameters of a node."""

    factor: int
    seed: int = 7


def multiply(x: int, settings: Settings) -> int:
    return x * settings.factor


def add_one(y: int) -> int:
    return y + 1


PIPELINE = Pipeline(
    [node(multiply, ["x", "params:settings"], "y", name="multiply"), node(add_one, "y", "z", name="add_one")]
)


def catalog_at(root: Path, version: str, **parameters: Any) -> DataCatalog:
    """x, y and z as versioned JSON files, as a session of this version would see them."""
    config = {
        name: {"type": "json.JSONDataset", "filepath": str(root / f"{name}.json"), "versioned": True}
        for name in "xyz"
    }
    catalog = DataCatalog.from_config(config, save_version=version)
    catalog["params:settings"] = Settings(factor=3)
    for name, value in parameters.items():
        catalog[f"params:{name}"] = value
    return catalog


def run(catalog: DataCatalog, version: str, pipeline: Pipeline = PIPELINE, **run_params: Any) -> None:
    """What a session does around its runner."""
    hooks = PluginManager("kedro")
    from kedro.framework.hooks.manager import _create_hook_manager

    hooks = _create_hook_manager()
    hooks.register(ProjectHooks())
    params = {"run_id": version, "env": "test", "pipeline_names": ["p"], "project_path": ".", **run_params}
    hooks.hook.before_pipeline_run(run_params=params, pipeline=pipeline, catalog=catalog)
    try:
        SequentialRunner().run(pipeline, catalog, hooks, run_id=version)
    except Exception as error:
        hooks.hook.on_pipeline_error(error=error, run_params=params, pipeline=pipeline, catalog=catalog)
        raise
    hooks.hook.after_pipeline_run(run_params=params, run_result={}, pipeline=pipeline, catalog=catalog)


def value(root: Path, name: str, version: str) -> int:
    return json.loads((root / f"{name}.json" / version / f"{name}.json").read_text())


def test_parameters_of_the_command_line_are_checked_where_the_configuration_is_a_folder(
    tmp_path: Path,
) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "local").mkdir()
    (tmp_path / "base" / "parameters.yml").write_text("settings: {factor: 3}\n")
    (tmp_path / "base" / "globals.yml").write_text("data_root: data\n")
    loader = OmegaConfigLoader(conf_source=str(tmp_path), base_env="base", default_run_env="local")
    check_command_line({"settings": {"factor": 4}}, loader)
    with pytest.raises(ConfigurationError, match="'setings', which nothing reads"):
        check_command_line({"setings": {"factor": 4}}, loader)
    check_command_line({"data_root": "elsewhere"}, loader)
    archive = SimpleNamespace(conf_source=str(tmp_path / "conf.tar.gz"))
    check_command_line({"setings": {"factor": 4}}, archive)


def test_the_command_line_sets_what_globals_name(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "local").mkdir()
    (tmp_path / "base" / "globals.yml").write_text("data_root: data\nmodel_root: ${data_root}/models\n")
    (tmp_path / "base" / "parameters.yml").write_text(
        "place: ${globals:data_root}/x\nmodel: ${globals:model_root}\n"
    )
    given = {"data_root": "/own"}
    loader = OmegaConfigLoader(
        conf_source=str(tmp_path), base_env="base", default_run_env="local", runtime_params=given
    )
    set_globals(given, loader)
    found = loader["parameters"]
    assert found["place"] == "/own/x"
    assert found["model"] == "data/models", (
        "what is derived from it in the file stays: the shipped model is not moved"
    )


def make_x(root: Path, version: str, x: int) -> None:
    """A version of x that a run made."""
    run(catalog_at(root, version), version, Pipeline([node(lambda: x, None, "x", name="make_x")]))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for version, x in (("2024-01-01T00.00.00.000Z", 1), ("2024-01-02T00.00.00.000Z", 2)):
        make_x(tmp_path, version, x)
    return tmp_path


def test_each_run_reads_what_it_began_with(root: Path) -> None:
    """Two runs at once: the one that started first must not read the data of the other."""
    first, second = "2024-02-01T00.00.00.000Z", "2024-02-02T00.00.00.000Z"
    catalogs = {version: catalog_at(root, version) for version in (first, second)}
    for version in (first, second):
        assert pin_versions(PIPELINE, catalogs[version]) == {"x": "2024-01-02T00.00.00.000Z"}
    make_x(root, "2024-03-01T00.00.00.000Z", 50)
    catalogs[second]["y"].save(1000)
    catalogs[first]["y"].save(10)
    assert catalogs[first].load("y") == 10
    assert catalogs[second].load("y") == 1000
    assert catalogs[first].load("x") == 2


def test_versions_that_the_user_pinned_stay(root: Path) -> None:
    catalog = catalog_at(root, "2024-02-01T00.00.00.000Z")
    pinned = DataCatalog.from_config(
        {"x": {"type": "json.JSONDataset", "filepath": str(root / "x.json"), "versioned": True}},
        load_versions={"x": "2024-01-01T00.00.00.000Z"},
        save_version="2024-02-01T00.00.00.000Z",
    )
    catalog["x"] = pinned["x"]
    assert pin_versions(PIPELINE, catalog) == {"x": "2024-01-01T00.00.00.000Z"}
    assert catalog.load("x") == 1


class Forgetful(JSONDataset):
    """Keeps nothing, as the store does of activations that are computed when they are read."""

    def save(self, data: Any) -> None:
        del data


def test_what_was_not_saved_has_no_provenance(root: Path) -> None:
    catalog = catalog_at(root, "v1")
    catalog["z"] = Forgetful(filepath=str(root / "z.json"), version=Version(None, "v1"))
    run(catalog, "v1")
    assert (root / "y.json/v1/provenance.json").exists()
    assert not (root / "z.json").exists()


def test_a_run_writes_provenance_beside_each_versioned_artefact(root: Path) -> None:
    version = "2024-02-01T00.00.00.000Z"
    run(catalog_at(root, version), version)
    assert value(root, "z", version) == 7
    found = json.loads((root / "z.json" / version / "provenance.json").read_text())
    assert found["dataset"] == "z"
    assert found["node"] == "add_one"
    y, x = found["inputs"]["y"], found["run_inputs"]["x"]
    assert y["version"] == version
    assert y["sha256"] == hashlib.sha256((root / "y.json" / version / "y.json").read_bytes()).hexdigest()
    assert x["version"] == "2024-01-02T00.00.00.000Z"
    assert found["lineage"] == {"x": x, "y": y}
    assert found["origin"]["url"] == str(root / "z.json" / version / "z.json")
    assert found["origin"]["from"] == ["y"]
    assert found["parameters"] == {"params:settings": {"factor": 3, "seed": 7}}
    assert found["seeds"] == {"params:settings.seed": 7}
    assert found["packages"]["kedro"] == "1.7.0" or found["packages"]["kedro"].startswith("1.")
    assert set(found["code"]) == {"commit", "modified"}
    assert (root / "y.json" / version / "provenance.json").exists()


def test_inputs_that_are_not_there_stop_the_run_before_it_begins(tmp_path: Path) -> None:
    version = "2024-02-01T00.00.00.000Z"
    catalog = catalog_at(tmp_path, version)
    with pytest.raises(StoreError, match=r"x: no whole version at .*x\.json"):
        run(catalog, version)
    plain = DataCatalog.from_config(
        {"x": {"type": "json.JSONDataset", "filepath": str(tmp_path / "plain.json")}}
    )
    catalog["x"] = plain["x"]
    with pytest.raises(StoreError, match=r"x: .*plain\.json"):
        run(catalog, version)


def test_the_engine_is_that_of_the_parameters_during_the_run(root: Path) -> None:
    seen: list[str] = []
    watched = Pipeline([node(lambda x: seen.append(current_engine().kind) or x, "x", "z", name="watch")])
    version = "2024-02-01T00.00.00.000Z"
    run(catalog_at(root, version, engine={"kind": "threads", "workers": 2}), version, watched)
    assert seen == ["threads"]
    assert current_engine() == EngineParameters()

    def fail(x: int) -> int:
        raise ValueError(x)

    version = "2024-02-02T00.00.00.000Z"
    catalog = catalog_at(root, version, engine=EngineParameters(kind="threads"))
    with pytest.raises(ValueError, match="2"):
        run(catalog, version, Pipeline([node(fail, "x", "z", name="fail")]))
    assert current_engine() == EngineParameters()


def test_description_of_a_run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    catalog = catalog_at(root, "2024-02-01T00.00.00.000Z")
    described = describe_run({"run_id": "r", "env": None, "pipeline_names": None}, PIPELINE, catalog)
    assert described["pipelines"] == ["__default__"]
    json.dumps(described)
    assert code_revision(str(tmp_path_factory.mktemp("no_repository"))) == {"commit": None, "modified": None}


def test_seeds_are_found_wherever_they_are() -> None:
    nested = {"params:a": {"seed": 1, "b": {"seed": 2, "seeds": 3}}, "params:c.seed": 4, "d": [{"seed": 5}]}
    assert dict(find_seeds(nested)) == {"params:a.seed": 1, "params:a.b.seed": 2, "params:c.seed": 4}
