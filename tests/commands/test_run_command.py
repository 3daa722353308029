"""What ``helix-sae run`` makes of a file and its options, before anything runs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from helix_sae.cli import app
from helix_sae.commands.run import Wishes, existing, plan_run, show_findings
from helix_sae.errors import ConfigurationError, DataError


@pytest.fixture
def table(tmp_path: Path) -> str:
    file = tmp_path / "my_utrs.csv"
    file.write_text(
        "utr,te\n" + "".join(f"ACGUACGUAC{letter}A,{i}.5\n" for i, letter in enumerate("ACGUACGU"))
    )
    return str(file)


def test_guesses_are_said(table: str) -> None:
    plan = plan_run(table, Wishes())
    assert plan.parameters["ingestion"]["columns"] == {"sequence": "utr", "te": "te"}
    assert plan.parameters["causal_acdc"]["target"] == "te"
    assert plan.parameters["causal_acdc"]["pairs"]["source"] == "natural"
    assert any("'utr'" in note for note in plan.notes)
    assert any("'te'" in note for note in plan.notes)
    assert any("--coding" in note for note in plan.notes)


def test_a_known_start_allows_designed_edits(table: str) -> None:
    plan = plan_run(table, Wishes(coding="AUGGGC"))
    assert plan.parameters["causal_acdc"]["pairs"]["source"] == "edited"
    assert plan.parameters["ingestion"]["reporter"] == {"five_prime": "", "coding": "AUGGGC"}
    assert not any("--coding" in note for note in plan.notes)


def test_whole_transcripts_alone_are_all_that_a_run_needs(tmp_path: Path) -> None:
    """The demo's interventions keep to 200 nt; that no sequence is as short is no reason to stop."""
    (tmp_path / "long.fa").write_text("".join(f">t{i}\n{'ACGU' * 100}\n" for i in range(5)))
    (tmp_path / "long.csv").write_text("utr,te\n" + "".join(f"{'ACGU' * 100},{i}.5\n" for i in range(5)))
    assert (
        plan_run(str(tmp_path / "long.fa"), Wishes()).parameters["causal_acdc"]["pairs"]["max_length"] is None
    )
    labelled = plan_run(str(tmp_path / "long.csv"), Wishes())
    assert labelled.parameters["causal_acdc"]["pairs"]["max_length"] is None
    assert any("take longer" in note for note in labelled.notes)
    set_by_hand = plan_run(str(tmp_path / "long.csv"), Wishes(settings=("causal_acdc.pairs.max_length=300",)))
    assert set_by_hand.parameters["causal_acdc"]["pairs"]["max_length"] == 300


def test_any_parameter_can_be_set(table: str) -> None:
    plan = plan_run(table, Wishes(settings=("sae_training.seed=1", "causal_acdc.pairs.source=edited")))
    assert plan.parameters["sae_training"] == {"seed": 1}
    assert plan.parameters["causal_acdc"]["pairs"] == {"source": "edited"}
    with pytest.raises(ConfigurationError, match="KEY=VALUE"):
        plan_run(table, Wishes(settings=("sae_training.seed",)))


def test_a_mistyped_column(table: str) -> None:
    with pytest.raises(DataError, match=r"no column 'tee'\. Did you mean 'te'\? It has utr, te\."):
        plan_run(table, Wishes(target="tee"))


def test_a_mistyped_path(table: str) -> None:
    with pytest.raises(DataError, match=r"no such file.*Did you mean .*my_utrs\.csv"):
        existing(table.replace("utrs", "utr"))
    assert existing("s3://bucket/x.csv") == "s3://bucket/x.csv"


def test_an_error_is_one_screen(table: str) -> None:
    shown = CliRunner().invoke(app, ["run", table.replace("utrs", "utr")])
    assert isinstance(shown.exception, DataError)


def test_help_has_examples_and_there_is_a_version() -> None:
    from helix_sae import __version__

    assert "helix-sae run my_utrs.csv" in CliRunner().invoke(app, ["run", "--help"]).output
    assert __version__ in CliRunner().invoke(app, ["--version"]).output


def test_a_named_column_of_sequences_leaves_the_target_to_be_guessed(table: str) -> None:
    plan = plan_run(table, Wishes(sequence="utr"))
    assert plan.parameters["ingestion"]["columns"] == {"sequence": "utr", "te": "te"}
    assert not any("'utr'" in note for note in plan.notes)


def test_the_last_screen_says_what_was_found_what_was_left_out_and_where_it_lies(tmp_path: Path) -> None:
    absent = {"run": False, "reason": "No start codon is known."}
    summary = {
        "headlines": ["Found."],
        "warnings": ["Weak."],
        "data": {"run": True},
        "effects": absent,
        "circuit": absent,
    }
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "summary.json").write_text(json.dumps(summary))
    console = Console(file=io.StringIO(), soft_wrap=True)
    show_findings(console, tmp_path, tmp_path / "log", 61.0)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    for line in (
        "  • Found.",
        "  ! Weak.",
        "  – left out: effects, circuit. No start codon is known.",
        "1.0 min",
    ):
        assert line in printed.splitlines()
    assert str(tmp_path / "latest" / "report.html") in printed
