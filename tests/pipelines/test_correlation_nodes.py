"""Nodes of the correlation pipeline: what they hand on, also where there is little or nothing to hand on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from pydantic import ValidationError
from scipy import sparse

from helix_sae.errors import AnalysisError
from helix_sae.pipelines.correlation import nodes
from helix_sae.pipelines.correlation.parameters import CorrelationParameters
from helix_sae.reporting.sections.associations import AssociationInputs, association_section
from helix_sae.sae import TokenCodes

N, F = 240, 12
SITE = "layers.0.mixer"


def parameters(**more: Any) -> CorrelationParameters:
    return CorrelationParameters.model_validate({"concepts": {}, "seed": 1, **more})


def study(*, signal: bool) -> tuple[dict[str, anndata.AnnData], pd.DataFrame]:
    rng = np.random.default_rng(0)
    values = np.where(rng.random((N, F)) < 0.4, rng.gamma(2, size=(N, F)), 0).astype(np.float32)
    table = pd.DataFrame(
        {
            "sequence_id": [f"s{i}" for i in range(N)],
            "cluster": [f"c{i}" for i in range(N)],
            "source": "lab",
            "split": np.where(np.arange(N) % 2, "validation", "discovery"),
            "structural_gc_content": rng.random(N),
            "structural_length": rng.integers(50, 99, N).astype(float),
            "functional_mrl": rng.random(N) + (values[:, 0] if signal else 0),
            "functional_constant": 3.0,
            "regulatory_empty": np.nan,
        }
    )
    codes = anndata.AnnData(X=sparse.csr_array(values), obs=pd.DataFrame(index=table["sequence_id"]))
    return {SITE: codes}, table.sample(frac=1, random_state=1)


def through_csv(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """What the next node gets: the catalog keeps tables as CSV."""
    table.to_csv(folder / "table.csv", index=False)
    return pd.read_csv(folder / "table.csv")


@pytest.mark.parametrize("signal", [True, False])
def test_the_nodes_hang_together(signal: bool, tmp_path: Path) -> None:
    codes, table = study(signal=signal)
    names = [
        "associations",
        "significant",
        "masked",
        "best_matches",
        "validation",
        "by_source",
        "warnings",
        "summary",
    ]
    made = dict(zip(names, nodes.associate_features(codes, table, parameters()), strict=True))
    assert (len(made["significant"]) > 0) == signal
    csv = {name: through_csv(made[name], tmp_path) for name in names if name != "associations"}
    hierarchy = through_csv(
        nodes.rank_hierarchy(csv["significant"], csv["best_matches"], csv["summary"]), tmp_path
    )
    assert set(hierarchy["category"]) >= {"functional", "structural", "regulatory", "none"}
    high_low = through_csv(nodes.validate_top(codes, table, csv["best_matches"], parameters()), tmp_path)
    calibration, quantiles = (
        through_csv(t, tmp_path)
        for t in nodes.calibrate_associations(codes, table, parameters(n_permutations=20))
    )
    drawn = nodes.draw(
        made["associations"], csv["best_matches"], hierarchy, calibration, quantiles, parameters()
    )
    assert [isinstance(figure, Figure) for figure in drawn] == [True, False] * 4
    for figure in drawn[1::2]:
        assert json.loads(figure.to_json())["data"]
    section = association_section(
        AssociationInputs(
            made["associations"],
            csv["significant"],
            csv["best_matches"],
            csv["validation"],
            csv["summary"],
            csv["warnings"],
            csv["masked"],
            hierarchy,
            high_low,
            calibration,
            quantiles,
        )
    )
    said = " ".join(section.warnings)
    assert "constant): constant" in said
    assert "all missing): Empty" in said
    if signal:
        best = csv["best_matches"].set_index("property").loc["functional_mrl"]
        assert best["feature"] == 0
        assert best["replicated"]
        assert high_low.loc[0, "agrees"]


def test_without_permutations_there_is_a_page_that_says_so(tmp_path: Path) -> None:
    codes, table = study(signal=True)
    given = parameters(n_permutations=0)
    calibration, quantiles = (
        through_csv(t, tmp_path) for t in nodes.calibrate_associations(codes, table, given)
    )
    assert calibration.empty
    assert quantiles.empty
    made = nodes.associate_features(codes, table, given)
    hierarchy = nodes.rank_hierarchy(made[1], made[3], made[7])
    figure, interactive = nodes.draw(made[0], made[3], hierarchy, calibration, quantiles, given)[-2:]
    assert any("No permutations" in text.get_text() for axes in figure.axes for text in axes.texts)
    assert "No permutations" in interactive.to_json()


@pytest.mark.parametrize("wrong", [{"n_permutations": 3}, {"n_permutations": 19}, {"n_permutations": -1}])
def test_too_few_permutations_are_refused_with_the_parameters(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="n_permutations"):
        parameters(**wrong)
    assert parameters(n_permutations=20).n_permutations == 20


def test_bounds_of_the_concept_parameters() -> None:
    for wrong in (
        {"kmer_sizes": [7]},
        {"kmer_sizes": [0]},
        {"n_shifts": -1},
        {"min_positive": 0},
        {"kmers": [1]},
    ):
        with pytest.raises(ValidationError):
            parameters(concepts=wrong)


def token_codes(lengths: list[int], fires: np.ndarray) -> TokenCodes:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return TokenCodes(
        sparse.csr_array(fires.astype(np.float32)[:, None]),
        offsets,
        np.array([f"s{i}" for i in range(len(lengths))], dtype=object),
        np.ones(offsets[-1], dtype=bool),
    )


def matches(concept: str) -> pd.DataFrame:
    return pd.DataFrame(
        {"site": [SITE], "feature": [0], "concept": [concept], "discovery_f1": [0.9], "rank_for_concept": [1]}
    )


def test_profiles_and_their_period() -> None:
    start, length = 40, 160
    within = np.tile(np.arange(length), 3)
    fires = ((within >= start) & ((within - start) % 3 == 1)).astype(float)
    table = pd.DataFrame(
        {
            "sequence_id": ["s0", "s1", "s2"],
            "sequence": ["A" * length] * 3,
            "cds_start": pd.array([start] * 3, dtype="Int64"),
            "cds_end": pd.array([length - 1, None, None], dtype="Int64"),
        }
    )
    profiles, periods = nodes.profile_landmarks(
        {SITE: token_codes([length] * 3, fires)}, table, matches("codon_pos_2")
    )
    assert profiles.empty, "only some concepts are drawn"
    profiles, periods = nodes.profile_landmarks(
        {SITE: token_codes([length] * 3, fires)}, table, matches("codon_pos_1")
    )
    assert set(profiles["landmark"]) == {"start codon", "stop codon"}
    shown = periods.set_index(["landmark", "side"])
    assert shown.loc[("start codon", "downstream"), "share"] == pytest.approx(1)
    assert shown.loc[("start codon", "downstream"), "phase"] == 1
    assert np.isnan(shown.loc[("start codon", "upstream"), "share"]), "silent: there is nothing to repeat"
    assert shown.loc[("stop codon", "upstream"), "share"] == pytest.approx(
        1, abs=0.01
    )  # the line through it is not flat
    figure, interactive = nodes.draw_profiles(profiles, periods)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts.count("3-nt 100%") == 1
    assert any("codon pos 1" in axes.get_title(loc="left") for axes in figure.axes)
    assert len(json.loads(interactive.to_json())["data"]) == 2


def test_bare_5utrs_have_no_profile_and_still_a_page(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "sequence_id": ["s0"],
            "sequence": ["ACGUACGU"],
            "cds_start": pd.array([8], dtype="Int64"),
            "cds_end": pd.array([None], dtype="Int64"),
        }
    )
    profiles, periods = nodes.profile_landmarks({SITE: token_codes([8], np.ones(8))}, table, matches("utr3"))
    figure, interactive = nodes.draw_profiles(through_csv(profiles, tmp_path), through_csv(periods, tmp_path))
    assert isinstance(figure, Figure)
    assert "No sequence" in interactive.to_json()


def test_certified_features_alone_can_be_asked_for() -> None:
    codes, table = study(signal=True)
    certified = np.array(["yes"] * 3 + ["no"] * (F - 3), dtype=object)
    codes[SITE].var["certified"] = certified
    codes[SITE].var["feature"], codes[SITE].var["stability"] = np.arange(F), 0.5
    whole = nodes.associate_features(codes, table, parameters())[0]
    assert set(whole["feature"]) == set(range(F))
    some = nodes.associate_features(codes, table, parameters(certified_only=True))
    assert set(some[0]["feature"]) == {0, 1, 2}
    assert len(some[1]) > 0
    assert (some[1]["certified"] == "yes").all()
    same = ["feature", "property", "effect", "p_value"]
    wanted = whole[whole["feature"] < 3][same].reset_index(drop=True)
    pd.testing.assert_frame_equal(some[0][same].reset_index(drop=True), wanted)
    codes[SITE].var["certified"] = "unknown"
    with pytest.raises(AnalysisError, match=r"stability of those of layers\.0\.mixer is unknown"):
        nodes.associate_features(codes, table, parameters(certified_only=True))
