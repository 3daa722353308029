"""The lineage of everything that one run reads and makes: checked before it begins, and again as its nodes come up."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from kedro.framework.project import pipelines as registered
from kedro.io.core import is_parameter
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from helix_sae.errors import StoreError
from helix_sae.lineage import (
    PARAMETER_PREFIX,
    Conflict,
    Record,
    describe_conflict,
    differing_parameters,
    find_conflicts,
    identity,
    inherit,
    inherit_parameters,
    outdated,
    recipe_of,
    roots,
)
from helix_sae.provenance import package_version, parameters_of
from helix_sae.storage import digest_of
from helix_sae.unversioned import Outdated, is_made_by, is_unversioned
from helix_sae.versions import (
    Catalog,
    artefact_path,
    pin,
    read_provenance,
    read_record,
    versioned_dataset,
    whole_versions,
)

LOGGER = logging.getLogger(__name__)

_ORDER = (
    "simulation", "pretraining", "ingestion", "extraction", "sae_sweep", "sae_training", "correlation",
    "causal_acdc", "reporting",
)  # fmt: skip
_SHOWN = 3
_HOW_IT_RUNS = {"device", "scratch", "folder", "compiled", "log_every"}
"""Parameters that say where and how something runs, which may differ between what is held against each other."""


class RunLineage:
    """Records of what a run reads and makes.

    Parameters
    ----------
    pipeline : Pipeline
    catalog : DataCatalog
        With the versions of its inputs pinned.
    run_params : mapping
        As Kedro gives them to its hooks.
    """

    def __init__(self, pipeline: Pipeline, catalog: Catalog, run_params: Mapping[str, Any]) -> None:
        self._pipeline, self._catalog, self._run_params = pipeline, catalog, run_params
        self._parameters = {node.name: parameters_of(node, catalog) for node in pipeline.nodes}
        inputs = sorted(n for n in pipeline.inputs() if not is_parameter(n) and n in catalog)
        self.inputs = {name: read_record(name, catalog[name]) for name in inputs}
        self._known = dict(self.inputs)
        self.recipes = self._find_recipes()

    def check(self) -> None:
        """Make sure that the run can join what it reads.

        Raises
        ------
        StoreError
            If its inputs descend from different things, or from something that the run makes anew in another
            way, or were made with another value of a parameter that the run asks for. It names the command
            that mends it.
        """
        records = list(self._known.values())
        self._refuse(find_conflicts(records), records)
        self._refuse(self._coming_conflicts(), records)
        differing = differing_parameters(self._asked(), records)
        if differing:
            said = "\n".join(
                f"  {name.removeprefix('params:')}: {now!r} now, {then!r} when {artefact} was made"
                for name, now, artefact, then in differing
            )
            strays = {artefact for _, _, artefact, _ in differing}
            raise StoreError(
                f"The run's parameters are not those with which its inputs were made:\n{said}\n"
                f"Set them to what they were, or make the inputs again:\n  {self._command(strays)}"
            )

    def reuse(self) -> None:
        """Let the runner pass over the outputs that a version with the same recipe exists of, and make all others.

        For ``--only-missing-outputs``: whether something is there is decided by what is recorded beside it.
        """
        for node in self._pipeline.nodes:
            datasets = {n: self._catalog[n] for n in node.outputs if n in self._catalog}
            for name, dataset in datasets.items():
                if is_unversioned(dataset) and not is_made_by(dataset, self.recipes[name]):
                    self._catalog[name] = Outdated(dataset)
            inner = {n: v for n, d in datasets.items() if (v := versioned_dataset(d)) is not None}
            found = {n: self._version_with_recipe(d, self.recipes[n]) for n, d in inner.items()}
            is_whole = all(version is not None for version in found.values())
            for name, dataset in inner.items():
                save = cast("str", dataset.resolve_save_version())
                pin(dataset, cast("str", found[name]) if is_whole else save, save)
                if is_whole:
                    self._known[name] = read_record(name, dataset)

    def check_node(self, node: Node) -> None:
        """Make sure that a node's inputs, now that they are all there, are of one lineage.

        Raises
        ------
        StoreError
        """
        records = [self._known[name] for name in node.inputs if name in self._known]
        self._refuse(find_conflicts(records), records)

    def add_saved(self, node: Node, name: str) -> Record:
        """Record what a node has made; what it saved before belongs to it as well.

        Outputs of one node are made together: a table of how well autoencoders do is of these autoencoders,
        although it is not made from them.
        """
        before = list(node.outputs[: node.outputs.index(name)])
        sources = [
            self._known[source] for source in dict.fromkeys([*node.inputs, *before]) if source in self._known
        ]
        origin: dict[str, Any] = {}
        dataset = versioned_dataset(self._catalog[name]) if name in self._catalog else None
        if dataset is not None:
            version = cast("str", dataset.resolve_save_version())
            path = artefact_path(dataset, version)
            fs = cast("Any", dataset)._fs
            if fs.exists(path):  # activations that are computed when they are read leave nothing
                origin = {"url": path, "version": version, "sha256": digest_of(fs, path),
                          "recipe": self.recipes[name], "from": sorted(_stored(sources))}  # fmt: skip
        parameters = {**inherit_parameters(sources), **self._parameters[node.name]}
        self._known[name] = Record(name, origin, inherit(sources), parameters)
        return self._known[name]

    def _asked(self) -> dict[str, Any]:
        """Parameters that decide what this run's results say of its inputs, by paths of their own.

        Those that nodes name so, and all of a group that a node borrows from another pipeline: what it makes
        is held against what that pipeline made, and has to be of the same settings.
        """
        asked: dict[str, Any] = {}
        for node in self._pipeline.nodes:
            for name, value in self._parameters[node.name].items():
                group = name.removeprefix(PARAMETER_PREFIX)
                if "." in group:
                    asked[name] = value
                elif node.namespace not in (None, group) and isinstance(value, Mapping):
                    leaves = _leaves(cast("Mapping[str, Any]", value))
                    asked |= {f"{name}.{p}": leaf for p, leaf in leaves if not _HOW_IT_RUNS & {*p.split(".")}}
        return asked

    def _find_recipes(self) -> dict[str, str]:
        """Recipe of everything that the run reads or makes."""
        recipes = {n: str(r.origin.get("recipe") or identity(r.origin)) for n, r in self.inputs.items()}
        release = str(package_version("helix_sae"))
        for node in self._pipeline.nodes:
            taken = [recipes.get(name, name) for name in node.inputs if not is_parameter(name)]
            for name in node.outputs:
                recipes[name] = recipe_of(node.name, name, self._parameters[node.name], taken, release)
        return recipes

    def _coming_conflicts(self) -> list[Conflict]:
        """What the run makes anew in another way, although inputs descend from how it was before."""
        made = set(self._pipeline.all_outputs())
        strays: dict[str, list[Record]] = {}
        for record in self.inputs.values():
            for name, origin in record.lineage.items():
                if name in made and origin.get("recipe") != self.recipes[name]:
                    strays.setdefault(name, []).append(record)
        return [
            Conflict(
                name, {}, strays[name][0].lineage[name], ("this run",), tuple(r.name for r in strays[name])
            )
            for name in roots(strays, inherit(self.inputs.values()))
        ]

    def _version_with_recipe(self, dataset: Any, recipe: str) -> str | None:
        for version in whole_versions(dataset):
            provenance = read_provenance(dataset, version) or {}
            if provenance.get("origin", {}).get("recipe") == recipe:
                return version
        return None

    def _refuse(self, conflicts: Sequence[Conflict], records: Sequence[Record]) -> None:
        if not conflicts:
            return
        more = f"\n  and {len(conflicts) - _SHOWN} more" if len(conflicts) > _SHOWN else ""
        said = "\n".join(describe_conflict(c) for c in conflicts[:_SHOWN]) + more
        raise StoreError(
            f"The inputs of this run do not belong together; they were made from different things:\n{said}\n"
            f"Make anew what is out of date:\n  {self._command(outdated(conflicts, records))}\n"
            "or read an older set that belongs together: --load-versions=NAME:VERSION,..."
        )

    def _command(self, names: Iterable[str]) -> str:
        """The command that makes some artefacts anew, and what this run was to make of them."""
        makers = _makers()
        wanted = {makers[name] for name in names if name in makers}
        asked = set(cast("list[str]", self._run_params.get("pipeline_names") or []))
        chosen = [name for name in _ORDER if name in wanted | asked]
        parts = ["kedro run", *(["--env", str(env)] if (env := self._run_params.get("env")) else [])]
        if chosen and "__default__" not in asked:
            parts.append(f"--pipelines={','.join(chosen)}")
        if given := cast("Mapping[str, Any]", self._run_params.get("runtime_params") or {}):
            parts.append(f'--params "{",".join(f"{path}={value}" for path, value in _leaves(given))}"')
        return " ".join(parts)


def _stored(records: Sequence[Record]) -> set[str]:
    """Names of the records; for one that is not stored, of what it was made from."""
    return {name for record in records for name in ([record.name] if record.origin else record.lineage)}


def _makers() -> dict[str, str]:
    """Pipeline that makes each dataset."""
    registered.set_requested(None)
    return {
        output: name
        for name, pipeline in registered.items()
        if name != "__default__"
        for output in cast("Pipeline", pipeline).all_outputs()
    }


def _leaves(values: Mapping[str, Any], path: str = "") -> Iterable[tuple[str, Any]]:
    """Nested parameters by their paths."""
    for key, value in values.items():
        here = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            yield from _leaves(cast("Mapping[str, Any]", value), here)
        else:
            yield here, value
