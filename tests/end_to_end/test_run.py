"""What `kedro run --env test` leaves behind, from simulated sequences to the report."""

from __future__ import annotations

import json
import pickletools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kedro_runs import kedro

from helix_sae.sae import load_sae

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

FIGURES = (
    "training_history",
    "feature_density",
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


def latest(root: Path, path: str) -> Path:
    """The newest version of a versioned artefact."""
    folder = root / path
    versions = sorted(p for p in folder.iterdir() if p.is_dir())
    assert versions, folder
    return versions[-1] / folder.name


def table(root: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(latest(root, f"08_reporting/{name}.csv"))


def test_every_record_of_the_demo_arrives(finished_run: Path) -> None:
    mrna = pd.read_parquet(latest(finished_run, "03_primary/mrna_table.parquet"))
    assert len(mrna) == 240
    assert mrna["sequence_id"].is_unique
    assert set("".join(mrna["sequence"])) <= set("ACGUN")
    assert mrna.groupby("cluster")["split"].nunique().max() == 1
    assert mrna["functional_mrl"].isna().any()
    assert not (mrna["functional_mrl"] == 0).any()


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_a_picture(finished_run: Path, name: str) -> None:
    assert latest(finished_run, f"08_reporting/figures/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_checkpoints_are_directories_that_load(finished_run: Path) -> None:
    folder = latest(finished_run, "06_models/sae_checkpoints")
    sites = sorted(p for p in folder.iterdir() if p.is_dir())
    assert len(sites) == 4
    for site in sites:
        sae = load_sae(site)
        assert np.allclose(sae.W_dec.detach().norm(dim=1).numpy(), 1, atol=1e-5)


def test_report_says_what_was_found(finished_run: Path) -> None:
    html = latest(finished_run, "08_reporting/run_report.html").read_text(encoding="utf-8")
    summary = json.loads(latest(finished_run, "08_reporting/run_summary.json").read_text(encoding="utf-8"))
    assert "<script" not in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert summary


def test_effects_come_with_their_split_and_a_q_value(finished_run: Path) -> None:
    effects = table(finished_run, "feature_effects")
    assert {"site", "feature", "discovery_oriented", "heldout_oriented", "q_value", "estimator"} <= set(
        effects
    )
    tested = effects[effects["selected"].astype(bool)]
    assert tested["q_value"].dropna().between(0, 1).all()
    assert (effects["estimator"] == "exact").all()


def test_versioned_artefacts_carry_their_provenance(finished_run: Path) -> None:
    for path in ("04_feature/activations", "06_models/sae_checkpoints", "07_model_output/sparse_codes"):
        provenance = json.loads(
            (latest(finished_run, path).parent / "provenance.json").read_text(encoding="utf-8")
        )
        assert provenance["parameters"]
        assert provenance["inputs"]


def test_nothing_that_was_written_is_a_pickle(finished_run: Path) -> None:
    for path in finished_run.rglob("*"):
        if path.is_file() and path.stat().st_size:
            head = path.read_bytes()[:2]
            assert not (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05"), path
            assert path.suffix not in {".pkl", ".pickle", ".pt", ".pth", ".joblib"}, path
    assert pickletools  # the opcodes above are PROTO of protocols 2 to 5


def test_one_pipeline_by_both_spellings_and_a_pinned_input(project_path: Path, finished_run: Path) -> None:
    version = latest(finished_run, "07_model_output/sequence_codes").parent.name
    for spelling in ("--pipeline=correlation", "--pipelines=correlation"):
        done = kedro(
            project_path,
            finished_run,
            *("run", "--env", "test", spelling, f"--load-versions=sequence_codes:{version}"),
            *("--to-nodes", "rank_hierarchy"),
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_a_mistake_in_the_parameters_stops_before_any_node(project_path: Path, finished_run: Path) -> None:
    done = kedro(
        project_path,
        finished_run,
        "run",
        "--env",
        "test",
        "--pipelines=causal_acdc",
        "--params",
        "causal_acdc.probe.flor=1",
    )
    assert done.returncode != 0
    assert "flor" in done.stdout + done.stderr
    assert "Running node" not in done.stdout + done.stderr


def test_a_missing_input_is_named(project_path: Path, tmp_path: Path) -> None:
    done = kedro(project_path, tmp_path, "run", "--env", "test", "--pipelines=extraction")
    assert done.returncode != 0
    assert "mrna_table" in done.stdout + done.stderr
