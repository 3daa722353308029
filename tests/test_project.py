"""The project as Kedro sees it: pipelines by name, catalogs and parameters of every environment."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from kedro.framework.project import pipelines as registry
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import CatalogConfigResolver, DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import helix_sae

ENVIRONMENTS = sorted(path.name for path in (Path(__file__).parents[1] / "conf").iterdir() if path.is_dir())
DEFAULT = ("ingestion", "extraction", "sae_training", "correlation", "causal_acdc", "reporting")
OPTIONAL = ("simulation", "pretraining", "sae_sweep")
VERSIONED = ("activations", "sae_checkpoints", "sparse_codes")
ROOTS = ("data_root", "raw_root", "model_root")
# None of these is needed to list what there is; each takes seconds to import. (torch comes with the parameter models.)
HEAVY = ("helical", "transformers", "sklearn", "matplotlib", "plotly")


@pytest.fixture(scope="module")
def project(project_path: Path) -> Iterator[Path]:
    """The project, set up in this process; logging and the environment are put back afterwards."""
    root = logging.getLogger()
    handlers, level, python_path = root.handlers[:], root.level, os.environ.get("PYTHONPATH")
    bootstrap_project(project_path)
    yield project_path
    root.handlers[:], root.level = handlers, level
    if python_path is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = python_path


def open_project(
    project: Path, environment: str | None = None, parameters: dict[str, Any] | None = None
) -> tuple[DataCatalog, dict[str, Any], dict[str, Any]]:
    """Catalog, its configuration and the globals; parameters of all pipelines are validated on the way."""
    registry.set_requested(None)
    with KedroSession.create(project, env=environment, runtime_params=parameters) as session:
        context = session.load_context()
        configuration = dict(context.config_loader["catalog"])
        resolver = CatalogConfigResolver(configuration)
        for name in set().union(*(data_names(pipeline.datasets()) for pipeline in registry.values())):
            if name not in configuration and resolver.match_dataset_pattern(name):
                configuration[name] = resolver.resolve_pattern(name)
        return context.catalog, configuration, dict(context.config_loader["globals"])


def data_names(names: set[str]) -> set[str]:
    return {name.split("@")[0] for name in names if name != "parameters" and not name.startswith("params:")}


def test_the_environments_of_the_readme_are_there() -> None:
    assert {"base", "local", "helix", "cluster", "test"} <= set(ENVIRONMENTS)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_catalog_entry_becomes_a_dataset(project: Path, environment: str) -> None:
    catalog, configuration, _ = open_project(project, environment)
    assert configuration
    for name in configuration:
        if "{" not in name:
            assert catalog.get(name) is not None, name


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_nothing_between_pipelines_falls_back_to_memory(project: Path, environment: str) -> None:
    _, configuration, _ = open_project(project, environment)
    for name, pipeline in registry.items():
        assert data_names(pipeline.inputs() | pipeline.outputs()) - configuration.keys() == set(), name
    every = {name for name in registry if name != "__default__"}
    made = {output: name for name in every for output in data_names(registry[name].all_outputs())}
    needed = set().union(*(data_names(registry[name].inputs()) for name in every))
    assert (needed & made.keys()) <= configuration.keys()


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_whatever_is_written_lies_below_the_roots(project: Path, environment: str) -> None:
    """An environment moves by its globals alone; on the cluster no output stays on some worker's disk."""
    _, configuration, settings = open_project(project, environment)
    roots = tuple(str(settings[root]) for root in ROOTS)
    for name in set().union(*(data_names(pipeline.all_outputs()) for pipeline in registry.values())):
        for path in paths_of(configuration.get(name, {})):
            assert path.startswith(roots), f"{name}: {path}"
    assert environment != "cluster" or str(settings["data_root"]).startswith("s3://")


LAYERS = (
    *("raw", "intermediate", "primary", "feature", "models", "codes", "model_input", "model_output"),
    *("results", "reporting"),
)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_entry_has_its_layer_and_data_flow_downwards(project: Path, environment: str) -> None:
    """Kedro-Viz draws the layers only where none flows back into one before it."""
    _, configuration, _ = open_project(project, environment)
    layer = {
        name: entry.get("metadata", {}).get("kedro-viz", {}).get("layer")
        for name, entry in configuration.items()
    }
    assert set(layer.values()) <= set(LAYERS), {name for name in layer if layer[name] not in LAYERS}
    rank = {name: LAYERS.index(given) for name, given in layer.items()}
    for node in {node for pipeline in registry.values() for node in pipeline.nodes}:
        for name in data_names(set(node.inputs)):
            for made in data_names(set(node.outputs)):
                assert rank.get(name, 0) <= rank.get(made, 99), f"{node.name}: {name} -> {made}"
    for pipeline in registry.values():
        list(TopologicalSorter(before_of_layers(pipeline, layer)).static_order())  # else a CycleError


def before_of_layers(pipeline: Pipeline, layer: dict[str, str]) -> dict[str, set[str]]:
    """Layers before each layer where pipelines are closed boxes, each between what it reads and what it makes."""
    before: dict[str, set[str]] = {}
    for box in {node.namespace for node in pipeline.nodes}:
        inside = pipeline.only_nodes_with_namespaces([box])
        read = {layer[name] for name in data_names(inside.inputs()) if name in layer}
        for name in data_names(inside.all_outputs()):
            if name in layer:
                before.setdefault(layer[name], set()).update(read - {layer[name]})
    return before


def test_every_pipeline_is_a_box(project: Path) -> None:
    """Nodes are in a namespace; datasets and parameters keep their names."""
    for name, pipeline in registry.items():
        for node in pipeline.nodes:
            assert node.namespace in ({name} if name != "__default__" else set(DEFAULT)), node
        assert not [
            n for n in pipeline.datasets() if "." in n.removeprefix("params:") and not n.startswith("params:")
        ]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_what_later_pipelines_and_readers_rely_on_is_versioned(project: Path, environment: str) -> None:
    _, configuration, _ = open_project(project, environment)
    for name in data_names({*VERSIONED, *registry["reporting"].outputs()}):
        assert configuration[name].get("versioned") is True, name


def test_each_environment_has_its_own_artefacts(project: Path) -> None:
    """The latest version in one environment must not be what another environment's model gave."""
    environments = [name for name in ENVIRONMENTS if name != "local"]
    roots = [open_project(project, name)[2]["data_root"] for name in environments]
    assert len(set(roots)) == len(roots)


def test_the_test_environment_goes_where_it_is_told(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIX_SAE_TEST_ROOT", tmp_path.as_posix())
    settings = open_project(project, "test")[2]
    assert all(str(settings[root]).startswith(tmp_path.as_posix()) for root in ROOTS)


def test_pipelines_have_their_names(project: Path) -> None:
    registry.set_requested(None)
    assert set(registry) == {*DEFAULT, *OPTIONAL, "__default__"}
    whole = sum((registry[name] for name in DEFAULT), Pipeline([]))
    assert set(registry["__default__"].nodes) == set(whole.nodes)


@pytest.mark.parametrize("name", DEFAULT + OPTIONAL)
def test_each_pipeline_loads_by_its_name_alone(project: Path, name: str) -> None:
    registry.set_requested([name])
    try:
        assert list(registry) == [name]
        assert registry[name].nodes
    finally:
        registry.set_requested(None)


def test_files_of_the_user_s_own_are_named_on_the_command_line(project: Path, tmp_path: Path) -> None:
    """``kedro run --params "sequences=x.fa,gff3=x.gff3,intervals=x.bed"``: transcripts, their coding regions, concepts."""
    (tmp_path / "x.fa").write_text(">a\nACATGAAATAAC\n>b\nACGT\n")
    (tmp_path / "x.gff3").write_text("a\tx\tCDS\t3\t11\t.\t+\t0\t.\n")
    (tmp_path / "x.bed").write_text("a\t1\t4\tclip\n")
    named = {"sequences": str(tmp_path / "x.fa"), "gff3": str(tmp_path / "x.gff3")}
    catalog, _, _ = open_project(project, parameters={**named, "intervals": str(tmp_path / "x.bed")})
    records = catalog.load("raw_sequences").records
    assert [record.values.get("cds_start") for record in records] == [2, None]
    assert catalog.load("concept_intervals")["name"].tolist() == ["clip"]
    catalog, _, _ = open_project(project)
    assert catalog.load("concept_intervals").empty


def test_every_default_input_is_shipped_or_made(project: Path) -> None:
    """``kedro run`` needs nothing beyond what the repository holds."""
    _, configuration, _ = open_project(project)
    for name in data_names(registry["__default__"].inputs()):
        for path in paths_of(configuration[name]):
            assert (project / path).exists(), f"{name}: {path}"


def test_a_run_may_begin_at_any_node(project: Path) -> None:
    """``kedro run --from-nodes=...``: whatever a node reads is kept, so that none has to be computed anew for it."""
    catalog, _, _ = open_project(project)
    default = registry["__default__"]
    for node in default.nodes:
        for name in data_names(default.from_nodes(node.name).inputs()):
            assert not isinstance(catalog.get(name), MemoryDataset | None), f"{node.name}: {name}"


def test_an_unknown_pipeline_is_answered_with_the_nearest(project: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"(?s)corelation.*correlation"),
        KedroSession.create(project) as session,
    ):
        session.run(pipeline_names=["corelation"])
    registry.set_requested(None)


@pytest.mark.parametrize(
    "parameters",
    [
        {"ingestion": {"no_such_parameter": 1}},
        {"ingestion": {"split": {"discovery": 1.7}}},
        {"extraction": {"dtype": "int8"}},
        {"sae_training": {"epochs": -1}},
        {"sae_sweep": {"grids": {"topk": {"k": [4, -1]}}}},
        {"correlation": {"alpha": 2.0}},
        {"causal_acdc": {"probe": {"kind": "oracle"}}},
    ],
)
def test_a_mistaken_parameter_is_reported_before_anything_runs(
    project: Path, parameters: dict[str, Any]
) -> None:
    with pytest.raises(Exception, match=f"(?s){next(iter(parameters))}.*validation"):
        open_project(project, parameters=parameters)


@pytest.mark.slow
def test_registry_list(project_path: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("kedro"), "registry", "list"],
        cwd=project_path, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    listed = set(re.findall(r"^- (\w+)$", done.stdout, re.MULTILINE))
    assert listed == {*DEFAULT, *OPTIONAL, "__default__"}


@pytest.mark.slow
def test_listing_the_pipelines_imports_nothing_heavy(project_path: Path) -> None:
    script = f"""
import sys
from kedro.framework.startup import bootstrap_project
bootstrap_project({str(project_path)!r})
from kedro.framework.project import pipelines
assert len(pipelines) == {len(DEFAULT + OPTIONAL) + 1}
import helix_sae.cli
print("heavy:", *[name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy:"


def test_nobody_is_called_without_consent(project_path: Path) -> None:
    assert yaml.safe_load((project_path / ".telemetry").read_text()) == {"consent": False}


HELICAL = {"3.11": "2.2.0", "3.12": "3.1.4"}
"""The newest helical that each Python allows."""


UNLOCKED = {"lab", "mlflow"}
"""Extras that .venv does not have; see pyproject.toml."""


@pytest.mark.parametrize("python", HELICAL)
def test_each_lock_pins_every_requirement_and_names_no_host(project_path: Path, python: str) -> None:
    lock = (project_path / f"requirements-{python}.lock").read_text(encoding="utf-8")
    assert not re.search(r"^--|://|file:|@ ", lock, re.MULTILINE)
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE))
    assert lock.count("--hash=sha256:") >= len(pinned)
    project = tomllib.loads((project_path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [
        r for extra, needs in project["optional-dependencies"].items() if extra not in UNLOCKED for r in needs
    ]
    wanted = [Requirement(line) for line in project["dependencies"] + extras]
    for requirement in wanted:
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            name = canonicalize_name(requirement.name)
            assert name in pinned, f"{requirement} is not in requirements-{python}.lock: make lock"
            assert requirement.specifier.contains(pinned[name]), (
                f"{requirement} is not met by {pinned[name]}: make lock"
            )
    assert pinned["helical"] == HELICAL[python]


def test_the_environment_of_real_saelens_is_locked_too(project_path: Path) -> None:
    folder = project_path / "tests" / "interop"
    lock = (folder / "requirements.lock").read_text(encoding="utf-8")
    assert not re.search(r"^--|://|file:|@ ", lock, re.MULTILINE)
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE))
    assert lock.count("--hash=sha256:") >= len(pinned)
    for line in (folder / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)])


def test_this_environment_is_the_one_that_is_locked() -> None:
    """What the tests pass with is what `make` installs, on either Python."""
    assert version("helical") == HELICAL[f"{sys.version_info.major}.{sys.version_info.minor}"]


def test_the_citation_and_the_changelog_know_this_version(project_path: Path) -> None:
    citation = yaml.safe_load((project_path / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == helix_sae.__version__
    assert f"\n## {helix_sae.__version__}" in (project_path / "CHANGELOG.md").read_text(encoding="utf-8")


def paths_of(entry: dict[str, Any]) -> list[str]:
    """Every path in a catalog entry, at any depth."""
    found = [str(entry[key]) for key in ("filepath", "path") if isinstance(entry.get(key), str)]
    return found + [path for value in entry.values() if isinstance(value, dict) for path in paths_of(value)]
