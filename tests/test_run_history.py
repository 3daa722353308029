"""Runs are told by what they left: listed, compared, and removed without taking what another run was made from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from helix_sae.cli import app
from helix_sae.errors import StoreError
from helix_sae.run_history import differences, figures_of_merit, find_runs, plan_removal, remove, run_named

FIRST, SECOND = "2026-01-01T00.00.00.000Z", "2026-01-02T00.00.00.000Z"


def leave(
    root: Path, place: str, version: str, *, seed: int, made_from: dict[str, str] | None = None
) -> Path:
    """A version as a run leaves it."""
    name = place.rpartition("/")[2].partition(".")[0]
    folder = root / place / version
    folder.mkdir(parents=True)
    summary = json.dumps({"effects": {"share": seed / 10}, "run": True})
    content = summary if name == "run_summary" else "x" * 1000
    (folder / place.rpartition("/")[2]).write_text(content)
    lineage = {n: {"version": v} for n, v in (made_from or {}).items()}
    provenance = {
        "dataset": name,
        "version": version,
        "pipelines": ["sae_training"],
        "parameters": {"params:sae_training": {"seed": seed, "batch_size": 8}},
        "lineage": {"raw_sequences": {"url": "/home/me/my.csv", "sha256": "ab"}, **lineage},
    }
    (folder / "provenance.json").write_text(json.dumps(provenance))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    leave(tmp_path, "03_primary/mrna_table.parquet", FIRST, seed=1)
    leave(tmp_path, "08_reporting/run_summary.json", FIRST, seed=1, made_from={"mrna_table": FIRST})
    leave(tmp_path, "08_reporting/run_summary.json", SECOND, seed=2, made_from={"mrna_table": FIRST})
    leave(tmp_path, "08_reporting/figures/curves.png", SECOND, seed=2, made_from={"mrna_table": FIRST})
    return tmp_path


def test_runs_and_what_they_made(root: Path) -> None:
    first, second = find_runs(str(root))
    assert [a.name for a in first.artefacts] == ["mrna_table", "run_summary"]
    assert {a.name for a in second.artefacts} == {"run_summary", "curves"}, "figures lie one folder deeper"
    assert first.sequences == "/home/me/my.csv"
    assert first.parameters == {"sae_training.seed": 1, "sae_training.batch_size": 8}
    assert figures_of_merit(first, str(root)) == {"effects.share": 0.1, "run": True}


def test_only_what_differs_is_compared(root: Path) -> None:
    first, second = find_runs(str(root))
    assert differences(first.parameters, second.parameters) == [("sae_training.seed", 1, 2)]
    assert differences({"a": 1}, {"b": 2}) == [("a", 1, None), ("b", None, 2)]


def test_a_run_is_named_by_its_beginning_or_as_the_latest(root: Path) -> None:
    runs = find_runs(str(root))
    assert run_named(runs, "latest").name == SECOND
    assert run_named(runs, "2026-01-01").name == FIRST
    with pytest.raises(StoreError, match="several begin so"):
        run_named(runs, "2026")
    with pytest.raises(StoreError, match="there is none"):
        run_named(runs, "2025")


def test_what_a_later_run_was_made_from_stays(root: Path) -> None:
    runs = find_runs(str(root))
    removal = plan_removal(runs, runs[0])
    assert [a.name for a in removal.kept] == ["mrna_table"]
    assert remove(removal, str(root)) > 0
    assert (root / "03_primary/mrna_table.parquet" / FIRST).exists()
    assert not (root / "08_reporting/run_summary.json" / FIRST).exists()
    assert (root / "08_reporting/run_summary.json" / SECOND).exists()


def test_the_last_run_goes_whole(root: Path) -> None:
    runs = find_runs(str(root))
    removal = plan_removal(runs, runs[1])
    assert not removal.kept
    remove(removal, str(root))
    assert [run.name for run in find_runs(str(root))] == [FIRST]


def test_no_such_place(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such folder"):
        find_runs(str(tmp_path / "nowhere"))


def test_the_commands(root: Path) -> None:
    def said(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["runs", *arguments, "--data", str(root)], catch_exceptions=False)
        assert done.exit_code == 0
        return done.output

    assert "2 runs in" in said("ls")
    assert "/home/me/my.csv" in said("show")
    assert "sae_training.seed  1  ->  2" in said("diff", "2026-01-01")
    assert "stays" in said("rm", "2026-01-01", "--yes")
    assert "freed" in said("rm", "2026-01-02", "--yes")
    assert "1 runs in" in said("ls")
