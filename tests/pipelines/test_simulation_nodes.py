"""Nodes of the simulation: every table has a stream of its own, and what is measured is kept apart from what is true."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from pydantic import ValidationError

from helix_sae.datasets.raw import SequenceFilesDataset
from helix_sae.pipelines.simulation import nodes
from helix_sae.pipelines.simulation.parameters import SimulationParameters

SMALL = {"reporters": 12, "constructs": 10, "transcripts": 8, "n_per_family": 2}


def parameters(**changes: Any) -> SimulationParameters:
    given = {
        "seed": 3,
        "demo": SMALL,
        "pretraining": SMALL,
        "heldout": SMALL,
        "missing_fraction": 0.3,
        "pairs_per_kind": 3,
    }
    return SimulationParameters.model_validate({**given, **changes})


def test_kinds_and_families():
    demo = nodes.simulate_demo(parameters())
    assert demo["kind"].value_counts().to_dict() == {"reporters": 12, "constructs": 10, "transcripts": 8}
    assert (demo.loc[demo["kind"] == "reporters", "cds_start"] == 50).all()
    assert demo.loc[demo["kind"] == "constructs", "cds_start"].between(25, 120).all()
    assert demo.loc[demo["kind"] == "transcripts", "cds_end"].notna().all()
    assert demo.loc[demo["kind"] != "transcripts", "cds_end"].isna().all()
    assert (demo.groupby("family").size() == 2).all()
    assert (demo["family"].str.split("_").str[0] == demo["kind"]).all()


@pytest.mark.parametrize("left_out", ["reporters", "constructs", "transcripts"])
def test_a_kind_that_is_not_asked_for(left_out: str):
    demo = nodes.simulate_demo(parameters(demo={**SMALL, left_out: 0}))
    assert left_out not in set(demo["kind"])
    assert len(demo) == 30 - SMALL[left_out]


def test_a_corpus_without_records_is_a_mistake_in_the_parameters():
    with pytest.raises(ValidationError, match="at least one"):
        parameters(demo={"reporters": 0, "constructs": 0, "transcripts": 0})
    with pytest.raises(ValidationError, match="construct_length"):
        parameters(demo={**SMALL, "construct_length": (60, 30)})


def test_each_table_has_a_stream_of_its_own():
    """The size of one table changes no other, so that the demo that is shipped stays what it is."""
    larger = parameters(pretraining={**SMALL, "reporters": 20})
    pd.testing.assert_frame_equal(nodes.simulate_demo(parameters()), nodes.simulate_demo(larger))
    (training, heldout), (more, same) = (nodes.simulate_pretraining(p) for p in (parameters(), larger))
    assert len(more) == len(training) + 8
    pd.testing.assert_frame_equal(heldout, same)
    assert set(training["sequence"]).isdisjoint(heldout["sequence"])
    assert not nodes.simulate_demo(parameters(seed=4)).equals(nodes.simulate_demo(parameters()))
    assert set(nodes.simulate_demo(parameters())["sequence"]).isdisjoint(training["sequence"])


def test_the_demo_lacks_labels_and_its_truth_does_not():
    demo = nodes.simulate_demo(parameters(demo={**SMALL, "reporters": 300}))
    records, truth = nodes.export_demo(demo, parameters())
    assert (
        [r["sequence"].replace("T", "U") for r in records]
        == truth["sequence"].tolist()
        == demo["sequence"].tolist()
    )
    transcripts = (demo["kind"] == "transcripts").to_numpy()
    assert np.isfinite(truth["mrl_true"]).all()
    assert np.isfinite(truth.loc[transcripts, ["te_true", "half_life_true"]]).all().all()
    missing = np.mean(["mrl" not in r["annotations"]["functional"] for r in records])
    assert missing == pytest.approx(0.3, abs=0.06)
    measured = np.array([r["annotations"]["functional"].get("mrl", math.nan) for r in records])
    known = ~np.isnan(measured)
    noise = measured[known] - truth["mrl_true"].to_numpy()[known]
    assert 0 < np.abs(noise).mean() < truth["mrl_true"].std()
    complete, _ = nodes.export_demo(demo, parameters(missing_fraction=0.0))
    assert all("mrl" in r["annotations"]["functional"] for r in complete)


def test_pairs_start_from_the_demo():
    demo = nodes.simulate_demo(parameters())
    pairs = nodes.simulate_pairs(demo, parameters())
    assert set(pairs["source"]) <= set(demo["sequence"])
    assert pairs["kind"].value_counts().max() <= 3 * 2  # an edit and its sham
    assert (pairs["source"] != pairs["target"]).all()


def test_pretraining_learns_what_is_true():
    training, _ = nodes.simulate_pretraining(parameters())
    again = nodes._simulate(parameters().pretraining, nodes._stream(3, nodes._PRETRAINING))
    assert training["sequence"].tolist() == again["sequence"].tolist()
    for name in ("mrl", "te", "half_life"):
        assert training[f"functional_{name}"].equals(again[f"{name}_true"].rename(f"functional_{name}"))
    assert training["sequence_id"].is_unique
    assert set(training["source"]) == {"reporters", "constructs", "transcripts"}


def test_the_shipped_demo_is_what_the_parameters_say(project_path: Path, tmp_path: Path):
    """Made again and written as the catalog writes them, the demo's files hold what lies in the repository.

    Sequences and the shape of the records are the same to the letter. Logarithms and exponentials differ in the last
    bit between processors, so numbers get the room of one unit of their last decimal.
    """
    shipped = project_path / "data" / "01_raw"
    stated = yaml.safe_load(
        (project_path / "conf/base/simulation/parameters.yml").read_text(encoding="utf-8")
    )
    given = SimulationParameters.model_validate(stated["simulation"])
    demo = nodes.simulate_demo(given)
    records, truth = nodes.export_demo(demo, given)
    SequenceFilesDataset(filepath=str(tmp_path), format="json").save(records)
    made, kept = (sorted(folder.iterdir()) for folder in (tmp_path, shipped / "demo"))
    assert [path.name for path in made] == [path.name for path in kept]
    for ours, theirs in zip(made, kept, strict=True):
        tables = [pd.json_normalize(json.loads(path.read_text(encoding="utf-8"))) for path in (ours, theirs)]
        pd.testing.assert_frame_equal(*tables, rtol=1e-9, atol=2e-6)
    close = {"rtol": 0, "atol": 1.5e-9}
    folder = shipped / "demo_truth"
    pd.testing.assert_frame_equal(truth, pd.read_csv(folder / "noiseless_phenotypes.csv"), **close)
    pd.testing.assert_frame_equal(nodes.state_truth(), pd.read_csv(folder / "causes.csv"), **close)
    pairs = pd.read_parquet(folder / "designed_pairs.parquet")
    pd.testing.assert_frame_equal(nodes.simulate_pairs(demo, given), pairs, **close)
