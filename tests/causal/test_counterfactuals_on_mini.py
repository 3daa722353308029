"""The simulator's counterfactuals on the shipped model: what is found on some families holds on others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from mini_setting import EDITS, MiniSetting, aligned

from helix_sae.causal.curves import curves, faithfulness, rank_nodes
from helix_sae.causal.effects import Effects, effects
from helix_sae.causal.experiment import Experiment
from helix_sae.causal.inference import (
    MADE_OR_BROKEN,
    attribution,
    bootstrap_means,
    designed_against_sham,
    designed_test,
    orientation,
)
from helix_sae.causal.pairs import designed_pairs
from helix_sae.causal.read_out import ProbeFit, fit_probe
from helix_sae.mrna.tokens import tokenize_table

SITE = "layers.4"


class Counterfactuals(NamedTuple):
    setting: MiniSetting
    fit: ProbeFit
    pairs: pd.DataFrame
    found: Effects


@pytest.fixture(scope="module")
def case(mini) -> Counterfactuals:
    # The residual stream: what a mixer adds is bypassed, and can bring about a part only.
    setting = mini._replace(saes={SITE: mini.saes[SITE]})
    table, model = mini.table, mini.model
    fit = fit_probe(
        model.embed(tokenize_table(table)),
        table["functional_mrl"],
        table["cluster"],
        table["split"],
        name="functional_mrl",
    )
    split_of = table.drop_duplicates("cluster").set_index("cluster")["split"]
    designs = setting.designs.assign(cluster=setting.designs["family"].astype(str))
    splits = designs["cluster"].map(split_of)
    pairs = designed_pairs(designs, "functional_mrl", splits=splits, kinds=EDITS).table
    aligned_pairs = aligned(
        pairs.rename(columns={"source_sequence": "source", "target_sequence": "target"}).assign(
            cds_start=pairs["source_cds_start"], cds_end=pairs["source_cds_end"]
        )
    )
    found = effects(Experiment(model, setting.saes, fit.probe, aligned_pairs), "atp")
    return Counterfactuals(setting, fit, pairs, found)


def test_the_probe_holds_on_other_families(case):
    assert case.fit.metrics["validation"].iloc[0] > 0.5


def test_predicted_differences_have_the_true_sign_on_held_out_families(case):
    """At least 80 % of uAUGs made and broken, and edits are felt far more than their shams."""
    rows = designed_test(designed_against_sham(case.found, case.pairs))
    row = rows[(rows["split"] == "validation") & (rows["kind"] == MADE_OR_BROKEN)].iloc[0]
    assert row["n"] >= 25
    assert row["sign_agreement"] >= 0.8
    assert row["p_value"] < 1e-6
    assert row["auc"] > 0.85


def test_shams_stay_within_the_noise(case):
    """No shift on average, and single ones inside the band of the probe's own error."""
    sham = case.pairs["is_sham"].to_numpy(dtype=bool)
    moved = case.found.y_target - case.found.y_source
    band = 1.96 * np.sqrt(case.fit.probe.residual_variance)
    assert sham.sum() >= 50
    assert (np.abs(moved[sham]) < band).mean() >= 0.95
    clusters = case.pairs["cluster"].to_numpy()[sham]
    signed = np.where(case.pairs["kind"][sham] == "uaug_make", -1.0, 1.0)
    low, high = bootstrap_means((moved[sham] * signed)[:, None], clusters)
    edit = np.abs(moved[~sham]).mean()
    assert low[0] > -0.1 * edit
    assert high[0] < 0.1 * edit


def test_features_ranked_on_some_families_move_others_the_right_way(case):
    """Knocking in the hundred features of 384 that rank first on discovery pairs, on held-out pairs."""
    pairs = case.pairs
    real = ~pairs["is_sham"].to_numpy(dtype=bool)
    discovery, held = ((pairs["split"] == side).to_numpy() for side in ("discovery", "validation"))
    scores = attribution(case.found, orientation(case.found, pairs), discovery)
    rows = np.flatnonzero(real & held)
    tokens = aligned(
        pairs.iloc[rows]
        .rename(columns={"source_sequence": "source", "target_sequence": "target"})
        .assign(cds_start=pairs["source_cds_start"], cds_end=pairs["source_cds_end"])
    )
    points = curves(
        Experiment(case.setting.model, case.setting.saes, case.fit.probe, tokens),
        rank_nodes(scores),
        k=[10, 100],
    )["sufficiency"]
    known = np.sign(pairs["difference"].to_numpy()[rows])
    agrees = np.sign(points.outcome.y[1] - points.outcome.y_source) == known
    assert agrees.mean() >= 0.8
    assert (
        faithfulness(points.outcome, points.y_patched)[1]
        > faithfulness(points.outcome, points.y_patched)[0]
        > 0
    )
