"""``helix-sae serve``: what is opened, and where it is listened at."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helix_sae.causal.read_out import Probe
from helix_sae.commands.serve import is_loopback, open_served
from helix_sae.datasets.structures import save_structure
from helix_sae.errors import ConfigurationError, StoreError
from helix_sae.explorer.answers import of_features
from helix_sae.left_out import LeftOut


@pytest.mark.slow
def test_what_is_shipped_is_served_where_nothing_ran(project_path: Path, tmp_path: Path) -> None:
    """The command itself, in a folder of its own: it says where it listens, answers, and ends when it is told to."""
    serving = subprocess.Popen(
        [Path(sys.executable).with_name("helix-sae"), "serve", "--port", "0"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert serving.stdout is not None
        said = serving.stdout.readline()
        found = re.search(r"Serving helix_mini, as shipped\. Open (http://127\.0\.0\.1:\d+/)", said)
        assert found, said
        with urllib.request.urlopen(f"{found[1]}api/about", timeout=30) as answer:
            about = json.load(answer)
        assert about["read_outs"][0] == "functional_mrl"
        assert about["n_features"] > 200
        assert about["atlas"] is False
    finally:
        serving.terminate()
    assert serving.wait(60) in (0, -signal.SIGTERM)  # uvicorn ends in order, then passes the signal on


def test_a_port_that_is_taken_is_one_sentence(project_path: Path) -> None:
    from helix_sae.commands.serve import Served, serve_at

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1:{port} cannot be listened at"):
            serve_at(Served(None, None), "127.0.0.1", port, print)  # pyright: ignore[reportArgumentType]


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no such folder"):
        open_served("2026", str(tmp_path / "none"))
    with pytest.raises(StoreError, match="No one run is called '2026'"):
        open_served("2026", str(tmp_path))


V = "2026-01-01T00.00.00.000Z"


def keep(root: Path, place: str, lineage: dict[str, Any] | None = None) -> Path:
    """Where a version's file or folder goes, with the record of it beside."""
    folder = root / place / V
    folder.mkdir(parents=True)
    name = Path(place).name
    record = {"dataset": name.partition(".")[0], "version": V, "lineage": lineage or {}}
    (folder / "provenance.json").write_text(json.dumps(record), encoding="utf-8")
    return folder / name


@pytest.fixture(scope="module")
def run_root(project_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves that the explorer reads, with a probe whose errors are known."""
    root, models = tmp_path_factory.mktemp("run"), project_path / "data" / "06_models"
    lineage = {"model": {"url": str(models / "helix_mini"), "codon_markers": "cds", "dtype": "float32"}}
    shutil.copytree(models / "helix_mini_saes", keep(root, "06_models/sae_checkpoints", lineage))
    probe = Probe.of_head("functional_mrl", np.full(96, 0.1), 1.0)
    folder = keep(root, "06_models/probe")
    folder.mkdir()
    save_structure(probe, folder)
    table = pd.DataFrame(
        {"sequence_id": ["a", "b"], "sequence": ["ACGUAUGGCC", "AUGGCCAAAUAA"], "cds_start": [4, 0]}
    ).assign(cds_end=[None, 12])
    table.to_parquet(keep(root, "03_primary/mrna_table.parquet"))
    pd.DataFrame(
        {"value": np.linspace(-1, 1, 99), "prediction": 0.0, "split": "validation", "is_further": False}
    ).to_csv(keep(root, "08_reporting/probe_predictions.csv"), index=False)
    pd.DataFrame({"name": ["L0.mixer.3"], "best_concept": ["<b>"]}).to_csv(
        keep(root, "08_reporting/features.csv"), index=False
    )
    keep(root, "08_reporting/run_report.html").write_text("report", encoding="utf-8")
    (root / "latest").mkdir()
    return root


def test_a_run_is_opened_with_all_that_belongs_to_it(run_root: Path) -> None:
    copy = run_root / "latest" / "report.html"
    copy.write_text("report", encoding="utf-8")
    session, pages = open_served(root=str(run_root))
    assert pages == run_root / "latest"
    assert session.title == f"run {V}"
    assert session.reference.lengths == (10, 12)
    name, read_out = session.read_out()
    assert name == "functional_mrl"
    # One in forty of the errors lies beyond either end.
    assert read_out.interval(5.0) == pytest.approx((5 - 0.97, 5 + 0.97), abs=0.02)
    assert session.own_record("b")[0].cds_end == 12
    told = {one.name: one.best_concept for one in of_features(session).features}
    assert told["L0.mixer.3"] == "<b>"

    copy.write_text("of another run", encoding="utf-8")
    assert open_served(V[:7], str(run_root)).pages is None


def test_pages_that_were_drawn_again_are_those_of_the_run(run_root: Path, tmp_path: Path) -> None:
    """Report and atlas of a later run of the reporting alone, as for labels; but not those of other autoencoders."""
    root = tmp_path / "again"
    shutil.copytree(run_root, root)
    (root / "latest" / "report.html").write_text("drawn again", encoding="utf-8")
    folder = root / "08_reporting" / "run_report.html" / V.replace("-01T", "-02T")
    folder.mkdir()
    (folder / "run_report.html").write_text("drawn again", encoding="utf-8")
    record: dict[str, Any] = {"dataset": "run_report", "version": folder.name}
    for trained, pages in ((V, root / "latest"), ("2026-01-01T01.00.00.000Z", None)):
        record["lineage"] = {"sae_checkpoints": {"version": trained}}
        (folder / "provenance.json").write_text(json.dumps(record), encoding="utf-8")
        assert open_served(root=str(root)).pages == pages


def test_where_no_read_out_was_made_the_heads_of_the_model_read(run_root: Path, tmp_path: Path) -> None:
    """A file without labels has no probe: what stands in its place says that it was left out."""
    root = tmp_path / "unlabelled"
    shutil.copytree(run_root, root)
    missing = LeftOut("the read-out", "no sequence has a measured value")
    shutil.rmtree(root / "06_models" / "probe" / V / "probe")
    (root / "06_models" / "probe" / V / "probe").mkdir()
    save_structure(missing, root / "06_models" / "probe" / V / "probe")
    missing.table().to_csv(root / "08_reporting/features.csv" / V / "features.csv", index=False)
    session = open_served(root=str(root)).session
    assert list(session.read_outs) == ["functional_mrl", "functional_te", "functional_half_life"]
    assert session.read_out()[1].interval(5.0) is None
    assert session.about.empty


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("example.org", False)],
)
def test_only_this_machines_own_addresses_need_no_token(host: str, own: bool) -> None:
    assert is_loopback(host) is own
