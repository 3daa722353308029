"""What ``helix-sae run`` makes of a file and its options, before anything runs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from helix_sae.cli import app
from helix_sae.commands.findings import plain_findings, show_findings
from helix_sae.commands.project import configured_places
from helix_sae.commands.run import Wishes, existing, plan_configured, plan_run
from helix_sae.errors import ConfigurationError, DataError
from helix_sae.latest import _FOLDERS, _PLACES, _WHOLE
from helix_sae.left_out import NOT_MADE


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
    assert "probe" not in plan.parameters["causal_acdc"]
    assert plan.parameters["causal_acdc"]["pairs"]["source"] == "natural"
    assert any("'utr'" in note for note in plan.notes)
    assert any("'te'" in note for note in plan.notes)
    assert any("--coding" in note for note in plan.notes)


def test_of_classes_the_commonest_is_explained(tmp_path: Path) -> None:
    file = tmp_path / "places.csv"
    places = ["nucleus", "cytoplasm", "nucleus", "", "membrane", "cytoplasm"]
    file.write_text("utr,place\n" + "".join(f"ACGUACGUACGU{'ACGUCG'[i]},{p}\n" for i, p in enumerate(places)))
    plan = plan_run(str(file), Wishes(target="place"))
    assert plan.parameters["causal_acdc"]["probe"] == {
        "kind": "logistic",
        "positive_class": "cytoplasm",
        "floor": 0.65,
    }
    assert any("'cytoplasm', the commonest, is explained against the rest" in note for note in plan.notes)
    named = Wishes(target="place", settings=("causal_acdc.probe.positive_class=nucleus",))
    assert plan_run(str(file), named).parameters["causal_acdc"]["probe"]["positive_class"] == "nucleus"


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


def test_without_a_file_the_demo_of_the_project_is_run(
    project_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plan_configured(Wishes(settings=("sae_training.seed=1",))).parameters == {
        "sae_training": {"seed": 1}
    }
    with pytest.raises(ConfigurationError, match="are of a FILE"):
        plan_configured(Wishes(target="te"))
    monkeypatch.chdir(project_path)
    assert configured_places(project_path, "base") == ("data/01_raw/demo", project_path / "data")
    # What came with the package is not written into.
    monkeypatch.chdir(tmp_path)
    assert configured_places(project_path, "base")[1] == tmp_path / "helix-sae-demo"


def test_make_run_is_that_command(project_path: Path) -> None:
    recipe = (project_path / "Makefile").read_text(encoding="utf-8").split("\nrun:")[1].split("\n\n")[0]
    assert "$(BIN)/helix-sae run\n" in recipe


SUMMARY = {
    "headlines": ["In full."],
    "warnings": ["Weak."],
    "data": {
        "run": True,
        "n_records": 300,
        "n_clusters": 290,
        "splits": {"discovery": 220, "validation": 80},
    },
    "autoencoders": {
        "run": True,
        "chosen": "pooled",
        "sites": [
            {"site": "a", "config": "relu", "seed": 0, "explained_variance": 0.2},
            {"site": "a", "config": "pooled", "seed": 0, "explained_variance": 0.951},
            {"site": "b", "config": "pooled", "seed": 0, "explained_variance": 0.978},
        ],
        "stability": [{"n_features": 60, "n_certified": 50}, {"n_features": 40, "n_certified": 39}],
    },
    "associations": {
        "run": True,
        "n_significant": 1305,
        "replication": {"rate": 0.626},
        "top_replicated": [
            {"property": p} for p in ("functional_te", "functional_te", "structural_gc_content")
        ],
    },
    "concepts": {
        "run": True,
        "best": [{"concept": "start_codon", "f1": 0.9}, {"concept": "utr3", "f1": 0.3}],
    },
    "prediction": {
        "run": True,
        "probe": {"target": "functional_te_hek293", "metric": "r2", "validation": 0.784},
    },
    "effects": {"run": True, "n_tested": 40, "n_confirmed": 2},
    "comparisons": {"run": True, "reference": {"k_at_level": 12.0, "n_nodes": 100, "level": 0.8}},
}


def test_the_last_screen_is_for_somebody_who_knows_neither_autoencoders_nor_kedro() -> None:
    assert plain_findings(SUMMARY) == [
        "300 sequences were read, of 290 families. What is found on 220 of the sequences is checked on the other"
        " 80.",
        "What the model computes was taken apart into 100 features, which tell 95 to 98 % of it; 89 of them are"
        " found again when the training is repeated.",
        "1,305 links between a feature and a property of the sequences were found, of which 63 % held on the"
        " others. The clearest: TE and GC content.",
        "Elements that single features mark best: start codon.",
        "From what the model computes, te_hek293 of the others is predicted with R² = 0.78 (1 is perfect, 0 no"
        " better than the mean).",
        "Changing one feature at a time inside the running model, 2 of 40 features tested move that prediction.",
        "12 of 100 features together bring about 80 % of the difference between two predictions.",
    ]
    causes = {"run": True, "n_features": 17, "confirmed": [{"site": "a", "feature": 3, "role": "effect"}] * 2}
    for some, told in (
        (
            {**SUMMARY, "causes": causes},
            "1 of 17 features tested moves that prediction for some kind of edit.",
        ),
        ({"effects": {"run": True, "n_tested": 9}}, "no feature was shown to move that prediction."),
    ):
        assert any(sentence.endswith(told) for sentence in plain_findings(some))
    of_the_model = {
        "run": True,
        "chosen": "relu",
        "sites": [{"config": "shipped", "explained_variance": share} for share in (0.943, 0.97)],
    }
    assert plain_findings({"autoencoders": of_the_model}) == [
        "The features that come with the model tell 94 to 97 % of what it computes of these sequences."
    ]
    assert plain_findings({"data": {"run": False, "reason": "x"}, "headlines": [], "warnings": []}) == []


def test_the_last_screen_says_what_was_found_what_was_left_out_and_where_it_lies(tmp_path: Path) -> None:
    absent = {"run": False, "reason": "No start codon is known."}
    (tmp_path / "latest").mkdir()
    unasked = {"run": False, "reason": f"x {NOT_MADE} (y)."}
    summary = {**SUMMARY, "effects": absent, "circuit": absent, "causes": unasked, "comparisons": unasked}
    (tmp_path / "latest" / "summary.json").write_text(json.dumps(summary))
    console = Console(file=io.StringIO(), soft_wrap=True)
    show_findings(console, tmp_path, tmp_path / "log", 61.0)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    for line in (
        "  • Elements that single features mark best: start codon.",
        "  ! Weak.",
        "  – left out: effects, circuit. No start codon is known.",
        "  – left out: comparisons, causes. Not asked for; helix-sae run FILE, without --only, does all.",
        "1.0 min",
    ):
        assert line in printed.splitlines()
    pages = (_PLACES["run_report"], f"{_WHOLE['feature_atlas']}/index.html", *_FOLDERS.values())
    for place in pages:
        assert str(tmp_path / "latest" / place) in printed
