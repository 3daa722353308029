"""``kedro viz build --include-previews`` on the results of a finished run: a page with every table, figure and store."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kedro_runs import FinishedRun, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

UNSHOWN = {"TextDataset", "MemoryDataset"}
"""Kinds of data that Kedro-Viz has no preview of."""
OWN = {
    "raw_sequences": "TablePreview",
    "demo_chunks": "TablePreview",
    "model": "JSONPreview",
    "helix_mini": "JSONPreview",
    "sequence_pairs": "TablePreview",
    "run_report": "TablePreview",
    "feature_atlas": "TablePreview",
    "activations": "JSONPreview",
    "sae_checkpoints": "JSONPreview",
    "sparse_codes": "JSONPreview",
    "sequence_codes": "JSONPreview",
    "nucleotide_annotations": "JSONPreview",
    "probe": "JSONPreview",
    "run_summary": "JSONPreview",
    "volcano_plotly": "PlotlyPreview",
    "volcano_figure": "ImagePreview",
    "intervention_curves_figure": "ImagePreview",
}


@pytest.fixture(scope="module")
def nodes(finished_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What was built about each dataset, by name."""
    # Kedro-Viz writes into the folder that it is called in; the repository stays as it is.
    project = tmp_path_factory.mktemp("viz-build")
    (project / "src").mkdir()
    for name in ("pyproject.toml", ".telemetry", "conf", "src/helix_sae"):
        (project / name).symlink_to(finished_run.project / name)
    done = subprocess.run(
        [Path(sys.executable).with_name("kedro"), "viz", "build", "--include-previews"],
        cwd=project, env={**os.environ, **environment(finished_run.root)},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "Success" in said, said
    assert "could not be previewed" not in said, said
    assert "did not have preview type" not in said, said
    assert "Layers visualisation is disabled" not in " ".join(said.split()), said
    build = project / "build"
    assert (build / "index.html").is_file()
    shown: dict[str, dict[str, Any]] = {}
    pipelines = json.loads((build / "api" / "main").read_text(encoding="utf-8"))["pipelines"]
    for pipeline in pipelines:
        graph = json.loads((build / "api" / "pipelines" / pipeline["id"]).read_text(encoding="utf-8"))
        for node in graph["nodes"]:
            if node["type"] == "data":
                shown[node["name"]] = json.loads(
                    (build / "api" / "nodes" / node["id"]).read_text(encoding="utf-8")
                )
    return shown


def test_everything_that_can_be_shown_is(nodes: dict[str, dict[str, Any]]) -> None:
    kinds = {name: str(node["type"]).rsplit(".")[-1] for name, node in nodes.items()}
    unshown = {name for name, node in nodes.items() if node.get("preview") is None}
    assert unshown == {name for name, kind in kinds.items() if kind in UNSHOWN}
    assert {"run_summary_text"} <= unshown
    assert {name: nodes[name]["preview_type"] for name in OWN} == OWN


def test_tables_are_those_of_the_run(nodes: dict[str, dict[str, Any]], finished_run: FinishedRun) -> None:
    shown = nodes["feature_effects"]["preview"]
    table = finished_run.table("feature_effects")
    assert shown["columns"] == list(table.columns)
    assert len(shown["data"]) == min(5, len(table))
    assert [row[shown["columns"].index("site")] for row in shown["data"]] == table["site"].head(5).tolist()
    mrna = pd.read_parquet(finished_run.newest("03_primary/mrna_table.parquet"))
    shown = nodes["mrna_table"]["preview"]
    assert [row[shown["columns"].index("sequence_id")] for row in shown["data"]] == mrna["sequence_id"].head(
        5
    ).tolist()
    assert {"sequence", "source"} <= set(nodes["raw_sequences"]["preview"]["columns"])


def test_figures_are_pictures(nodes: dict[str, dict[str, Any]]) -> None:
    pictures = {name: n["preview"] for name, n in nodes.items() if n.get("preview_type") == "ImagePreview"}
    assert len(pictures) >= 15
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures.values())
    interactive = [n["preview"] for n in nodes.values() if n.get("preview_type") == "PlotlyPreview"]
    assert len(interactive) >= 3
    assert all(figure["data"] and figure["layout"] for figure in interactive)


def test_stores_say_what_they_hold(nodes: dict[str, dict[str, Any]]) -> None:
    shown = {name: json.loads(nodes[name]["preview"]) for name, kind in OWN.items() if kind == "JSONPreview"}
    sites = {"layers.0.mixer", "layers.2.mixer", "layers.4.mixer", "layers.6.mixer"}
    assert set(shown["sae_checkpoints"]) == set(shown["sequence_codes"]) == sites
    assert set(shown["sparse_codes"]["sites"]) == set(shown["sparse_codes"]["d_sae"]) == sites
    assert shown["activations"]["n_sequences"] == 240
    assert shown["sparse_codes"]["n_tokens"] == shown["activations"]["n_tokens"]
    assert shown["model"]["fingerprint"] == shown["activations"]["fingerprint"]
    assert shown["helix_mini"]["hidden_size"] == 32
    assert shown["run_summary"]["data"]["n_records"] == 240
