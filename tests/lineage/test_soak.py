"""Random short runs, some killed, some two at once, against what the catalog should then hold.

Each value holds what it was made from, so that what was joined can be told from the content alone, without the records that
the project itself goes by. Once over a toy project, whose stores are cleared and collected between runs, once over the
project's own pipelines and catalog (:mod:`catalog_world`). ``HELIX_SAE_SOAK_RUNS`` and ``HELIX_SAE_SOAK_SEED`` change how many
and which.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import catalog_world
import pytest
from activation_toys import save_version, toy_plan, toy_table
from fsspec.implementations.local import LocalFileSystem
from kedro.pipeline import Pipeline
from toy_project import (
    PARAMETERS,
    PIPELINES,
    STORED,
    associate,
    encode,
    intervene,
    report,
    run_toy,
    summarise,
    tabulate,
)
from toy_project import train as train_toy

from helix_sae.errors import StoreError
from helix_sae.shards.maintenance import find_garbage, list_versions, remove_garbage, verify_store
from helix_sae.storage import digest_of, sha256

DONE, REFUSED, FAILED = 0, 3, 4
RUNS = int(os.environ.get("HELIX_SAE_SOAK_RUNS", "100"))
SEED = int(os.environ.get("HELIX_SAE_SOAK_SEED", "0"))


class Soak:
    """The catalog of the toy project under test, and what is known about it."""

    pipelines: Mapping[str, Pipeline] = PIPELINES
    stored: Sequence[str] = STORED
    kinds = ("all", "missing", "part", "part", "part", "pinned", "store")

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.random, self.step = root, random.Random(seed), 0
        self.usual = 0.2  # seconds that a run takes
        self.counts: Counter[str] = Counter()
        self.write_raw("A")

    # What is done

    def write_raw(self, letter: str) -> None:
        self.raw = letter
        (self.root / "raw.txt").write_text(letter)

    def next_version(self) -> str:
        self.step += 1
        return f"v{self.step:05d}"

    def parameters(self) -> dict[str, Any]:
        chosen = {name: dict(values) for name, values in PARAMETERS.items()}
        chosen["training"]["seed"] = self.random.choice([1, 1, 2])
        chosen["correlation"]["alpha"] = self.random.choice([0.05, 0.05, 0.1])
        chosen["causal"]["target"] = self.random.choice(["mrl", "mrl", "te"])
        return chosen

    def run(
        self, version: str, names: Sequence[str], pins: dict[str, str], only_missing: bool, parameters: Any
    ) -> None:
        run_toy(self.root, version, *names, load_versions=pins, only_missing=only_missing, **parameters)

    def start(self, what: Callable[[], object]) -> int:
        """Run something in a process of its own; its number."""
        child = os.fork()
        if child:
            return child
        code = FAILED
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            what()
            code = DONE
        except StoreError:
            code = REFUSED
        finally:
            os._exit(code)

    def wait(self, child: int, killed_after: float | None) -> int | None:
        """Its exit code; None if it was killed first."""
        began = time.monotonic()
        if killed_after is not None:
            time.sleep(killed_after)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if killed_after is None:
            self.usual += 0.2 * (time.monotonic() - began - self.usual)
        if os.WIFSIGNALED(status):
            self.counts["kills"] += 1
            return None
        return os.WEXITSTATUS(status)

    def one_step(self) -> None:
        if self.random.random() < 0.15:
            self.write_raw(self.random.choice("ABC"))
        if self.random.random() < 0.1:
            self.collect_garbage()
        at_once = 2 if self.random.random() < 0.2 else 1
        started = [self.begin() for _ in range(at_once)]
        for child, kind, names, parameters, fate in started:
            code = self.wait(child, fate)
            self.counts["runs"] += 1
            assert code in (DONE, REFUSED, None), (kind, names, parameters)
            self.counts["refused"] += code == REFUSED
            if code == DONE and kind in ("all", "missing"):
                assert self.has_report(parameters), (kind, parameters)
            if code == REFUSED and at_once == 1 and kind == "part":
                assert self.is_mixed(names[0], parameters), (names, parameters)
        self.check()

    def begin(self) -> tuple[int, str, tuple[str, ...], dict[str, Any], float | None]:
        """Start a random run."""
        version, parameters = self.next_version(), self.parameters()
        kind = self.random.choice(self.kinds)
        # Within the time that a run takes on this machine now: later, there would be nothing to kill.
        fate = self.random.uniform(0.0, self.usual) if self.random.random() < 0.25 else None
        names: tuple[str, ...] = ()
        pins: dict[str, str] = {}
        if kind in ("part", "pinned"):
            names = (self.random.choice(list(self.pipelines)),)
        if kind == "pinned":
            needed = [
                n for n in sorted(self.pipelines[names[0]].inputs()) if n in self.stored and self.whole(n)
            ]
            pins = {n: self.random.choice(self.whole(n))[0] for n in needed if self.random.random() < 0.5}
        if kind == "store":
            plan = toy_plan(toy_table(self.random.choice([4, 8, 12])))
            child = self.start(lambda: save_version(str(self.root / "acts"), version, plan))
        else:
            child = self.start(lambda: self.run(version, names, pins, kind == "missing", parameters))
        return child, kind, names, parameters, fate

    def collect_garbage(self) -> None:
        acts = self.root / "acts"
        if not acts.exists():
            return
        try:
            versions = list_versions(str(acts))
        except StoreError:
            return
        if len(versions) > 1 and self.random.random() < 0.5:
            shutil.rmtree(Path(self.random.choice(versions).folder).parent)
        remove_garbage(str(acts), find_garbage(str(acts), 0), keep_s=self.random.choice([0, 3600]))
        self.counts["collections"] += 1

    # What has to be so

    def whole(self, name: str) -> list[tuple[str, Any]]:
        """Versions with their record, and the content of each; oldest first."""
        found: list[tuple[str, Any]] = []
        for record in sorted((self.root / f"{name}.json").glob("*/provenance.json")):
            found.append((record.parent.name, json.loads((record.parent / f"{name}.json").read_text())))
        return found

    def has_report(self, parameters: dict[str, Any]) -> bool:
        """Whether there is the report of the present input with these parameters."""
        return expected_report(self.raw, parameters) in [content for _, content in self.whole("report")]

    def is_mixed(self, name: str, parameters: dict[str, Any]) -> bool:
        """Whether the newest inputs of a pipeline are missing, were made from different things, or for another target."""
        inputs = [n for n in self.pipelines[name].inputs() if n in self.stored]
        newest = [self.whole(n)[-1:] for n in inputs]
        if not all(newest):
            return True
        contents = [content for ((_, content),) in newest]
        targets = set(find(contents, "target"))
        return is_joined_wrongly(contents) or (
            name == "reporting" and targets != {parameters["causal"]["target"]}
        )

    def check(self) -> None:
        """No half version, no wrong join, no lost shard."""
        for name in STORED:
            for version, content in self.whole(name):
                folder = self.root / f"{name}.json" / version
                recorded = json.loads((folder / "provenance.json").read_text())
                assert sha256((folder / f"{name}.json").read_bytes()) == recorded["origin"]["sha256"]
                assert not is_joined_wrongly([content]), (name, version)
                for source, origin in recorded["lineage"].items():
                    if source in STORED:
                        made = self.root / f"{source}.json" / origin["version"]
                        assert (made / "provenance.json").exists(), (name, version, source)
                        assert sha256((made / f"{source}.json").read_bytes()) == origin["sha256"]
                self.counts["artefacts checked"] += 1
        if list((self.root / "acts").glob("*/acts/manifest.json")):
            problems = list(verify_store(str(self.root / "acts")))
            assert set(problems) <= {None}
            self.counts["shards checked"] += len(problems)


def find(value: Any, key: str) -> list[Any]:
    """Everything of a name within nested values."""
    if isinstance(value, dict):
        return [v for k, v in value.items() if k == key] + [f for v in value.values() for f in find(v, key)]
    return [f for v in value for f in find(v, key)] if isinstance(value, list) else []


def is_joined_wrongly(contents: list[Any]) -> bool:
    """Whether values hold more than one raw file, or more than one seed of autoencoders."""
    return len(set(find(contents, "table"))) > 1 or len(set(find(contents, "seed"))) > 1


def expected_report(raw: str, parameters: dict[str, Any]) -> Any:
    """The slow plain twin: the toy's functions one after another."""
    table = tabulate(raw)
    sae, quality = train_toy(table, parameters["training"])
    codes = encode(table, sae)
    associations = associate(codes, table, parameters["correlation"])
    effects = intervene(sae, table, parameters["causal"])
    return json.loads(
        json.dumps(report(summarise(codes, associations), quality, effects, parameters["causal"]["target"]))
    )


class CatalogSoak(Soak):
    """The project's own pipelines and catalog under test."""

    kinds = ("all", "missing", "missing", "part", "part", "part", "pinned")

    def __init__(self, root: Path, seed: int) -> None:
        self.world = catalog_world.World(root)
        self.pipelines, self.stored = self.world.pipelines, self.world.stored
        self.checked: set[tuple[str, str]] = set()
        self.known: dict[tuple[str, str], catalog_world.Made | None] = {}
        super().__init__(root, seed)

    def write_raw(self, letter: str) -> None:
        self.raw = letter
        self.world.write_raw(letter)

    def parameters(self) -> dict[str, Any]:
        return {path: self.random.choice(values) for path, values in catalog_world.VARIED.values()}

    def run(
        self, version: str, names: Sequence[str], pins: dict[str, str], only_missing: bool, parameters: Any
    ) -> None:
        os.fsync = lambda descriptor: None  # a killed process loses nothing that it has written
        self.world.run(version, names, pins, only_missing, parameters)

    def collect_garbage(self) -> None:
        for store in self.stores():
            garbage = find_garbage(store, 0)
            remove_garbage(store, garbage, keep_s=self.random.choice([0, 3600]))
            self.counts["collections"] += 1

    def stores(self) -> list[str]:
        """Stores of shards that have a version: of activations, and of codes of every token."""
        places = [self.world.paths[name] for name in ("activations", "sparse_codes")]
        return [str(place) for place in places if list(place.glob("*/*/manifest.json"))]

    def whole(self, name: str) -> list[tuple[str, Any]]:
        """Versions with their record, and what each says that it was made from; oldest first."""
        versions = sorted(record.parent.name for record in self.world.paths[name].glob("*/provenance.json"))
        for version in versions:
            if (name, version) not in self.known:
                self.known[name, version] = self.world.load(name, version)
        return [(version, self.known[name, version]) for version in versions]

    def has_report(self, parameters: dict[str, Any]) -> bool:
        expected = {short: {str(parameters[path])} for short, (path, _) in catalog_world.VARIED.items()}
        return {"raw": {self.raw}, **expected} in [made for _, made in self.whole("run_report")]

    def is_mixed(self, name: str, parameters: dict[str, Any]) -> bool:
        """Whether inputs are missing, were made from different things, or with other parameters than the run takes."""
        inputs = [n for n in self.world.pipelines[name].inputs() if n in self.stored]
        newest = [self.whole(n)[-1:] for n in inputs]
        taken = {short: {str(parameters[catalog_world.VARIED[short][0]])} for short in self.world.taken(name)}
        made = catalog_world.merge([*(found[0][1] for found in newest if found and found[0][1]), taken])
        return not all(newest) or catalog_world.is_joined_wrongly(made)

    def check(self) -> None:
        """No half version, no wrong join, no lost shard."""
        for name in self.stored:
            for version, made in self.whole(name):
                assert made is None or not catalog_world.is_joined_wrongly(made), (name, version, made)
                if (name, version) in self.checked:
                    continue
                folder = self.world.paths[name] / version
                recorded = json.loads((folder / "provenance.json").read_text())
                artefact = folder / self.world.paths[name].name
                assert digest_of(LocalFileSystem(), str(artefact)) == recorded["origin"]["sha256"], (
                    name,
                    version,
                )
                for source, origin in recorded["lineage"].items():
                    if source in self.stored:
                        assert (self.world.paths[source] / origin["version"] / "provenance.json").exists()
                        assert made is None or self.fits(made, self.known.get((source, origin["version"])))
                self.checked.add((name, version))
                self.counts["artefacts checked"] += 1
        for store in self.stores():
            problems = list(verify_store(store))
            assert set(problems) <= {None}
            self.counts["shards checked"] += len(problems)

    @staticmethod
    def fits(made: catalog_world.Made, source: catalog_world.Made | None) -> bool:
        """Whether something may be made from a source that its record names."""
        return source is None or all(made.get(name) == values for name, values in source.items())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_random_runs_of_the_projects_own_pipelines_and_catalog(tmp_path: Path) -> None:
    soak = CatalogSoak(tmp_path, SEED)
    soak.usual = 5.0
    while soak.counts["runs"] < RUNS:
        soak.one_step()
    print(f"seed {SEED}: {dict(soak.counts)}")
    assert soak.counts["kills"] > RUNS // 20
    assert soak.counts["artefacts checked"] > 10 * RUNS


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_random_runs_leave_no_wrong_join_no_half_version_and_no_lost_shard(tmp_path: Path) -> None:
    soak = Soak(tmp_path, SEED)
    while soak.counts["runs"] < RUNS:
        soak.one_step()
    print(f"seed {SEED}: {dict(soak.counts)}")
    assert soak.counts["kills"] > RUNS // 20
    assert soak.counts["refused"] > RUNS // 50
