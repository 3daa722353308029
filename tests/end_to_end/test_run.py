"""What `kedro run --env test` leaves behind, from simulated sequences to the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kedro_runs import FinishedRun, run_kedro

from helix_sae.sae import load_sae

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

FIGURES = (
    "training_history",
    "feature_density",
    "sae_pareto",
    "volcano",
    "heatmap",
    "layer_profile",
    "qq",
    "metagene",
    "intervention_curves",
    "baseline_curves",
    "acdc",
    "feature_effects",
    "block_comparison",
    "predicted_difference",
    "designed_effects",
    "circuit",
)
SECTIONS = (
    "data",
    "autoencoders",
    "associations",
    "concepts",
    "prediction",
    "effects",
    "comparisons",
    "circuit",
)


def test_every_record_of_the_demo_arrives(finished_run: FinishedRun) -> None:
    mrna = pd.read_parquet(finished_run.newest("03_primary/mrna_table.parquet"))
    assert len(mrna) == 240
    assert mrna["sequence_id"].is_unique
    assert set("".join(mrna["sequence"])) <= set("ACGUN")
    assert mrna.groupby("cluster")["split"].nunique().max() == 1
    assert mrna["functional_mrl"].isna().any()
    assert not (mrna["functional_mrl"] == 0).any()


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_a_picture(finished_run: FinishedRun, name: str) -> None:
    assert finished_run.newest(f"08_reporting/figures/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_checkpoints_are_directories_that_load(finished_run: FinishedRun) -> None:
    folder = finished_run.newest("06_models/sae_checkpoints")
    sites = sorted(p for p in folder.iterdir() if p.is_dir())
    assert len(sites) == 4
    for site in sites:
        sae = load_sae(site)
        assert np.allclose(sae.W_dec.detach().norm(dim=1).numpy(), 1, atol=1e-5)


def test_report_says_what_was_found(finished_run: FinishedRun) -> None:
    html = finished_run.newest("08_reporting/run_report.html").read_text(encoding="utf-8")
    summary = json.loads(finished_run.newest("08_reporting/run_summary.json").read_text(encoding="utf-8"))
    assert "<script" not in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert all(summary[section]["run"] for section in SECTIONS if section in summary)
    assert {"data", "prediction"} <= summary.keys()
    assert summary["headlines"]
    for headline in summary["headlines"]:
        assert " ".join(headline.split()[:4]) in " ".join(finished_run.output.split())


def test_effects_come_with_their_split_and_a_q_value(finished_run: FinishedRun) -> None:
    effects = finished_run.table("feature_effects")
    assert {"site", "feature", "discovery_oriented", "validation_oriented", "q_value", "estimator"} <= set(
        effects
    )
    tested = effects[effects["selected"].astype(bool)]
    assert len(tested)
    assert tested["q_value"].dropna().between(0, 1).all()
    assert (effects["estimator"] == "exact").all()


def test_versioned_artefacts_carry_their_provenance(finished_run: FinishedRun) -> None:
    for path in ("04_feature/activations", "06_models/sae_checkpoints", "07_model_output/sparse_codes"):
        provenance = json.loads(
            (finished_run.newest(path).parent / "provenance.json").read_text(encoding="utf-8")
        )
        assert provenance["parameters"]
        assert provenance["inputs"]


def test_nothing_that_was_written_is_a_pickle(finished_run: FinishedRun) -> None:
    """A pickle of protocol 2 or later begins with the opcode PROTO and its number."""
    files = [path for path in finished_run.root.rglob("*") if path.is_file()]
    assert len(files) > 50
    for path in files:
        head = path.read_bytes()[:2]
        assert not (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05"), path
        assert path.suffix not in {".pkl", ".pickle", ".pt", ".pth", ".joblib"}, path


@pytest.mark.parametrize("spelling", ["--pipeline=correlation", "--pipelines=correlation"])
def test_one_pipeline_by_both_spellings_and_a_pinned_input(finished_run: FinishedRun, spelling: str) -> None:
    version = finished_run.newest("07_model_output/sequence_codes").parent.name
    done = finished_run.kedro(
        *(
            "run",
            spelling,
            f"--load-versions=sequence_codes:{version}",
            "--to-nodes",
            "correlation.rank_hierarchy",
        )
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_a_mistake_in_the_parameters_stops_before_any_node(finished_run: FinishedRun) -> None:
    done = finished_run.kedro("run", "--pipelines=causal_acdc", "--params", "causal_acdc.probe.flor=1")
    assert done.returncode != 0
    assert "flor" in done.stdout + done.stderr
    assert "Running node" not in done.stdout + done.stderr


def test_a_parameter_that_nobody_reads_stops_before_any_node(project_path: Path, tmp_path: Path) -> None:
    for given, told in (
        ("sequnces=mine.csv", "Did you mean 'sequences'"),
        ("sequences=mine.csv,gff=x", "Did you mean 'gff3'"),
    ):
        done = run_kedro(project_path, tmp_path, "run", "--pipelines=ingestion", "--params", given)
        assert done.returncode != 0
        assert told in done.stdout + done.stderr
        assert "Running node" not in done.stdout + done.stderr


def test_a_missing_input_is_named(project_path: Path, tmp_path: Path) -> None:
    done = run_kedro(project_path, tmp_path, "run", "--pipelines=extraction")
    assert done.returncode != 0
    assert "mrna_table" in done.stdout + done.stderr
