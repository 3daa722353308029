"""What belongs together is told from what does not: by what each artefact records of where it came from."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kedro.pipeline import Pipeline, node
from toy_project import PIPELINES, run_toy, train

from helix_sae import run_lineage
from helix_sae.errors import ConfigurationError, StoreError
from helix_sae.hooks import ProjectHooks
from helix_sae.lineage import Record, differing_parameters, find_conflicts, recipe_of


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """After one run of everything."""
    monkeypatch.setattr(run_lineage, "_ORDER", tuple(PIPELINES))
    makers = {o: name for name, p in PIPELINES.items() for o in p.all_outputs()}
    monkeypatch.setattr(run_lineage, "_makers", lambda: makers)
    (tmp_path / "raw.txt").write_text("ACGU")
    assert len(run_toy(tmp_path, "v1")) == 7
    return tmp_path


def provenance(root: Path, name: str, version: str) -> dict[str, Any]:
    return json.loads((root / f"{name}.json" / version / "provenance.json").read_text())


def test_lineage_goes_up_to_the_raw_file(root: Path) -> None:
    found = provenance(root, "report", "v1")
    assert set(found["lineage"]) == {"raw", "table", "sae", "quality", "codes", "associations", "effects"}
    assert found["lineage"]["raw"]["url"] == str(root / "raw.txt")
    assert len(found["lineage"]["raw"]["sha256"]) == 64
    assert found["lineage"]["effects"]["from"] == ["sae", "table"]
    # The summary is held in memory only: what it was made from stands for it.
    assert {"codes", "associations", "effects"} <= set(found["origin"]["from"])
    assert found["made_with"]["params:training"] == {"seed": 1}


def test_a_report_of_two_dictionaries_is_refused(root: Path) -> None:
    run_toy(root, "v2", "training", training={"seed": 777})
    with pytest.raises(StoreError, match="do not belong together") as refused:
        run_toy(root, "v3", "reporting", training={"seed": 777})
    said = str(refused.value)
    assert "sae (version v2" in said
    assert "sae (version v1" in said
    assert "associations, effects: sae (version v1" in said
    assert "kedro run --env test --pipelines=correlation,causal,reporting" in said
    assert not (root / "report.json" / "v3").exists()
    # New associations beside old effects.
    run_toy(root, "v4", "correlation", training={"seed": 777})
    with pytest.raises(StoreError, match=r"(?s)effects: sae \(version v1.*--pipelines=causal,reporting"):
        run_toy(root, "v5", "reporting", training={"seed": 777})
    run_toy(root, "v6", "causal", training={"seed": 777})
    run_toy(root, "v7", "reporting", training={"seed": 777})


def test_an_older_set_that_belongs_together_can_be_read(root: Path) -> None:
    run_toy(root, "v2", "training", training={"seed": 777})
    older = {"codes": "v1", "quality": "v1"}
    run_toy(root, "v3", "reporting", load_versions=older)
    assert provenance(root, "report", "v3")["lineage"]["sae"]["version"] == "v1"


def test_another_quality_of_the_same_node_is_another_dictionary(root: Path) -> None:
    """`quality` is not made from `sae`, but beside it: alone it would tell of autoencoders that nothing else is of."""
    alone = Pipeline([node(train, ["table", "params:training"], ["sae", "quality"], name="train")])
    run_toy(root, "v2", pipeline=alone, training={"seed": 777})
    with pytest.raises(StoreError, match=r"quality: sae \(version v2"):
        run_toy(root, "v3", "reporting")


def test_equal_content_belongs_together_whenever_it_was_made(root: Path) -> None:
    run_toy(root, "v2", "training")
    run_toy(root, "v3", "reporting")


def test_another_input_is_refused_by_what_reads_the_first_ones_codes(root: Path) -> None:
    (root / "raw.txt").write_text("GGGG")
    run_toy(root, "v2", "ingestion")
    with pytest.raises(StoreError, match="do not belong together") as refused:
        run_toy(root, "v3", "correlation")
    assert "kedro run --env test --pipelines=training,correlation" in str(refused.value)
    assert "raw" in str(refused.value)


def test_what_the_run_makes_anew_is_told_before_it_is_made(root: Path) -> None:
    with pytest.raises(StoreError, match="which this run makes in another way") as refused:
        run_toy(root, "v2", "training", "reporting", training={"seed": 777})
    assert "--pipelines=training,correlation,causal,reporting" in str(refused.value)
    assert not (root / "sae.json" / "v2").exists()
    run_toy(root, "v3", "training", "reporting")


def test_what_comes_out_otherwise_than_its_recipe_is_told_when_it_is_joined(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the same seed may give other autoencoders."""

    def encode(table: Any, sae: Any) -> dict[str, Any]:
        return {"of": "chance"}

    pipeline = Pipeline([node(encode, ["table", "sae"], "codes", name="encode")]) + PIPELINES["reporting"]
    with pytest.raises(StoreError, match="do not belong together"):
        run_toy(root, "v2", pipeline=pipeline)


def test_a_parameter_that_a_page_states_is_the_one_that_its_tables_were_made_with(root: Path) -> None:
    with pytest.raises(StoreError, match=r"causal\.target: 'te' now, 'mrl' when effects was made"):
        run_toy(root, "v2", "reporting", causal={"target": "te"})
    # A group is shared by many nodes: what is of no concern to the page does not stop it.
    run_toy(root, "v3", "reporting", causal={"target": "mrl", "n_resamples": 5})


def test_parameters_that_a_pipeline_borrows_are_those_that_its_inputs_were_made_with(root: Path) -> None:
    """A baseline trained as the autoencoders are is of the settings that these were trained with."""
    inputs = {"sae": "sae", "parameters": "params:training"}
    borrower = Pipeline([node(train_again, inputs, "codes", name="borrower")], namespace="correlation",
                        inputs={"sae"}, outputs={"codes"}, parameters={"training"})  # fmt: skip
    run_toy(root, "v2", pipeline=borrower)
    with pytest.raises(StoreError, match=r"training\.seed: 2 now, 1 when sae was made"):
        run_toy(root, "v3", pipeline=borrower, training={"seed": 2})
    run_toy(root, "v4", pipeline=borrower, training={"seed": 1, "device": "cuda"})


def train_again(sae: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
    return {"beside": sae, "seed": parameters["seed"]}


def test_missing_outputs_are_those_that_were_made_otherwise(root: Path) -> None:
    assert run_toy(root, "v2", only_missing=True) == []
    (root / "raw.txt").write_text("GGGG")
    assert len(run_toy(root, "v3", only_missing=True)) == 7
    assert run_toy(root, "v4", only_missing=True) == []
    again = run_toy(root, "v5", only_missing=True, correlation={"alpha": 0.1})
    assert again == ["associate", "summarise", "report"]
    assert provenance(root, "report", "v5")["lineage"]["sae"]["version"] == "v3"
    # The first input again: its results are still there.
    (root / "raw.txt").write_text("ACGU")
    assert run_toy(root, "v6", only_missing=True) == []


def test_outputs_without_versions_are_reused_by_their_record_too(root: Path) -> None:
    own = root / "own"
    own.mkdir()
    (own / "raw.txt").write_text("ACGU")

    def run(version: str, target: str = "mrl") -> list[str]:
        causal = {"target": target}
        return run_toy(own, version, only_missing=True, unversioned=("effects",), causal=causal)

    assert len(run("v1")) == 7
    assert run("v2") == []
    assert run("v3", "te") == ["intervene", "summarise", "report"]  # what is in memory alone is made again
    (own / "effects.json").write_text('{"effects": "written by hand"}')
    assert run("v4", "te") == ["intervene"]
    (own / ".effects.json.provenance.json").write_text("{")
    assert run("v5", "te") == ["intervene"]  # nothing says how it was made
    assert run("v6", "te") == []


def test_what_was_lost_is_made_again_and_nothing_else(root: Path) -> None:
    shutil.rmtree(root / "associations.json")
    assert run_toy(root, "v2", only_missing=True) == ["associate"]
    (root / "codes.json" / "v1" / "provenance.json").unlink()  # killed before it was whole
    assert run_toy(root, "v3", only_missing=True) == ["encode"]


def test_a_version_without_its_record_is_passed_over(root: Path) -> None:
    half = root / "codes.json" / "v9" / "codes.json"
    half.parent.mkdir()
    half.write_text('{"of": "ha')
    run_toy(root, "v10", "correlation")
    assert provenance(root, "associations", "v10")["inputs"]["codes"]["version"] == "v1"
    with pytest.raises(StoreError, match="codes: no whole version"):
        run_toy(root, "v11", "correlation", load_versions={"codes": "v9"})


def test_a_record_of_an_earlier_release_is_refused_by_name(root: Path) -> None:
    path = root / "codes.json" / "v1" / "provenance.json"
    path.write_text(json.dumps({"inputs": {"table": "v1"}}))
    with pytest.raises(StoreError, match=r"codes: version v1 does not say what it came from"):
        run_toy(root, "v2", "correlation")
    path.write_text("{")
    with pytest.raises(StoreError, match=r"provenance\.json: the record .* is damaged"):
        run_toy(root, "v3", "correlation")


def test_versions_dated_in_the_future_are_refused(root: Path) -> None:
    ahead = datetime.now(tz=UTC) + timedelta(days=2)
    version = ahead.strftime("%Y-%m-%dT%H.%M.%S.") + "000Z"
    (root / "codes.json" / "v1").rename(root / "codes.json" / version)
    with pytest.raises(StoreError, match=r"codes: version .* is dated in the future"):
        run_toy(root, "v2", "correlation")
    with pytest.raises(StoreError, match=r"codes: version .* is dated in the future"):
        run_toy(root, "v2", "training")
    run_toy(root, "v3", "correlation", load_versions={"codes": version})


def test_runners_that_record_nothing_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="ThreadRunner"):
        ProjectHooks().before_pipeline_run({"runner": "<kedro.runner.ParallelRunner>"}, Pipeline([]), {})


def test_conflicts_that_follow_from_another_one_are_left_out() -> None:
    def record(name: str, sae: str, codes: str, version: str) -> Record:
        lineage = {
            "sae": {"sha256": sae, "from": []},
            "codes": {"sha256": codes, "from": ["sae"], "version": version},
        }
        return Record(name, {"sha256": name, "version": version}, lineage)

    (conflict,) = find_conflicts([record("a", "1", "x", "v1"), record("b", "2", "y", "v2")])
    assert (conflict.name, conflict.holders, conflict.strays) == ("sae", ("b",), ("a",))
    assert find_conflicts([record("a", "1", "x", "v1"), record("b", "1", "x", "v2")]) == []
    # Where the model is stated on one side alone there is nothing to compare.
    assert find_conflicts([Record("a", lineage={"sae": {}}), record("b", "2", "y", "v2")]) == []


def test_recipes() -> None:
    def recipe(parameters: dict[str, Any], inputs: list[str]) -> str:
        return recipe_of("n", "o", parameters, inputs, "1")

    plain = recipe({"params:a": {"k": 1, "scratch": {"directory": "/tmp/x"}}}, ["i"])
    assert recipe({"params:a": {"k": 1, "scratch": {"directory": "/tmp/y"}}}, ["i"]) == plain
    assert recipe({"params:a": {"k": 2}}, ["i"]) != plain
    assert recipe({"params:a": {"k": 1}}, ["j"]) != plain


def test_parameters_that_an_artefact_does_not_know() -> None:
    records = [Record("a", parameters={"params:x": {"y": {"z": 1}}})]
    assert differing_parameters({"params:x.y.z": 2, "params:x": 3, "params:x.q": 4}, records) == [
        ("params:x.y.z", 2, "a", 1)
    ]
