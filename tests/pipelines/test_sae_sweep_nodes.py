"""The pipeline of the sweep: from activations to the parameters to set, and what stands there without a winner."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from pydantic import ValidationError
from sae_toys import superposition

from helix_sae.errors import DataError
from helix_sae.left_out import left_out_of
from helix_sae.pipelines.sae_sweep import create_pipeline, nodes
from helix_sae.pipelines.sae_sweep.parameters import SaeSweepParameters
from helix_sae.pipelines.sae_training.parameters import SaeTrainingParameters
from helix_sae.sae import ArrayBatches
from helix_sae.tables import SCHEMAS

SITE = "layers.0.mixer"
IN_USE = {
    "saes": {"relu": {"architecture": "relu", "l1_coefficient": 0.05, "expansion_factor": 1}},
    "chosen": "relu", "batch_size": 100, "min_steps": 30, "holdout_tokens": 400,
}  # fmt: skip
GRIDS = {
    "topk": {"architecture": "topk", "k": [2, 6], "expansion_factor": 2, "learning_rate": 0.01, "n_steps": 60}
}


def activations() -> Any:
    """1,500 tokens of one site: five sequences, the last of which is held out."""
    rows = superposition(1500)
    parts = {"discovery": rows[:1200], "validation": rows[1200:]}

    def batches(
        sites: list[str], size: int, seed: int, *, sequence_ids: list[str], **more: Any
    ) -> ArrayBatches:
        part = "validation" if sequence_ids == ["s4"] else "discovery"
        return ArrayBatches(dict.fromkeys(sites, parts[part]), size, seed, more.get("epochs", 1))

    return SimpleNamespace(
        sites=(SITE,), widths={SITE: 12}, sequence_ids=[f"s{i}" for i in range(5)], batches=batches,
        source=SimpleNamespace(is_stored=True), check_finite=lambda: None,
        n_tokens_of=lambda names: 300 * len(names),
    )  # fmt: skip


TABLE = pd.DataFrame(
    {"sequence_id": [f"s{i}" for i in range(5)], "split": ["discovery"] * 4 + ["validation"]}
)


def run(rule: dict[str, float], grids: dict[str, Any] = GRIDS) -> dict[str, Any]:
    given: dict[str, Any] = {
        "activations": activations(),
        "mrna_table": TABLE,
        "params:sae_sweep": SaeSweepParameters(grids=grids, n_seeds=2, rule=rule),
        "params:sae_training": SaeTrainingParameters(**IN_USE),
    }
    for node in create_pipeline().nodes:
        given |= node.run({name: given[name] for name in node.inputs})
    return given


def test_the_pick_is_what_training_then_uses_and_nothing_else() -> None:
    made = run({"min_explained_variance": 0.5})
    SCHEMAS["sae_sweep"].check(made["sae_sweep"], "sae_sweep")
    assert made["sae_sweep"]["rung"].tolist() == ["present", "topk 1", "topk 2"]
    pick = made["sae_sweep_pick"]
    assert pick["rung"].startswith("topk")
    merged = OmegaConf.merge({"sae_training": IN_USE}, pick["parameters"])
    training = SaeTrainingParameters(**OmegaConf.to_container(merged)["sae_training"])
    rung = made["sae_sweep"].set_index("rung").loc[pick["rung"]]
    assert list(training.saes) == ["swept"]
    assert training.saes["swept"].k == int(str(rung["sparsity"]).removeprefix("k "))
    assert (training.saes["swept"].learning_rate, training.n_steps(10**6)) == (0.01, 60)
    assert pick["measures"]["pw_mcc"] == pytest.approx(rung["pw_mcc"], abs=1e-4)


def test_settings_in_use_are_left_where_they_are_picked() -> None:
    sweep = run({"min_explained_variance": -10.0})["sae_sweep"]
    sweep = sweep.assign(l0=np.where(sweep["rung"] == "present", 1.0, 5.0))
    pick = nodes.pick_settings(
        sweep,
        SaeSweepParameters(grids=GRIDS, rule={"min_explained_variance": -10.0}),
        SaeTrainingParameters(**IN_USE),
    )
    assert (pick["rung"], pick["parameters"]) == ("present", {})


def test_settings_in_use_are_tried_once() -> None:
    training = SaeTrainingParameters(**IN_USE)
    grid = {**IN_USE["saes"]["relu"], "n_steps": [30, 40]}
    rungs = nodes.all_rungs(SaeSweepParameters(grids={"relu": grid}), training, n_tokens=1000)
    assert [(rung.name, rung.n_steps) for rung in rungs] == [("present", 30), ("relu 2", 40)]


def test_a_sweep_without_a_winner_keeps_its_table_and_figure_and_says_so() -> None:
    made = run({"min_explained_variance": 0.9999})
    assert len(made["sae_sweep"]) == 3
    assert made["sae_sweep_figure"].axes
    missing = left_out_of(made["sae_sweep_pick"])
    assert missing is not None
    assert "None of the 3 rungs explains at least 0.9999" in missing.reason


def test_rungs_that_these_tokens_are_too_few_for_are_named_before_any_training() -> None:
    wide = {"wide": {"architecture": "topk", "k": 2, "expansion_factor": 64}}
    with pytest.raises(DataError, match=r"sae_sweep.grids.wide\) needs at least 3,840"):
        run({}, wide)


@pytest.mark.parametrize(
    ("grids", "said"),
    [
        ({"present": GRIDS["topk"]}, "give the grid another name"),
        ({"a": {"architecture": "none such"}}, "The grid a"),
        ({"a": None}, "at least 1 item"),
    ],
)
def test_grids_that_cannot_be_are_refused(grids: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SaeSweepParameters(grids=grids)
