"""What the report says: the words of every section go with its numbers, in good results, in weak ones and in none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import report_data
import report_tables as tables
from matplotlib.figure import Figure
from report_tables import SITES

from helix_sae.reporting.document import ReportFigure, ReportTable, Section, plain, run_summary
from helix_sae.reporting.drawings import png_uri
from helix_sae.reporting.sections import (
    association_section,
    autoencoder_section,
    circuit_section,
    comparison_section,
    concept_section,
    data_section,
    effect_section,
    prediction_section,
)
from helix_sae.reporting.sections.associations import AssociationInputs, top_replicated
from helix_sae.reporting.sections.circuits import (
    circuit_sizes,
    members_at,
    order_overlap,
    surviving_members,
)
from helix_sae.reporting.sections.comparisons import ComparisonInputs, judge
from helix_sae.reporting.sections.concepts import compare_kinds
from helix_sae.reporting.sections.effects import EffectInputs, decoy_test

FIGURES = {
    "associations": ("volcano", "association_heatmap", "layer_profile", "qq"),
    "autoencoders": ("training_history", "feature_density"),
    "circuits": ("acdc_curves",),
    "comparisons": ("baseline_curves", "intervention_curves", "block_comparison"),
    "concepts": ("metagene",),
    "effects": ("feature_effects", "designed_effects"),
    "prediction": ("predicted_difference",),
}


@pytest.fixture
def drawn() -> None:
    """Asked for by a test that wants its figures as pictures."""


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing is what costs time here: empty figures do where the words are the matter."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr("helix_sae.reporting.document.png_uri", lambda figure: "data:image/png;base64,")
        for module, names in FIGURES.items():
            for name in names:
                monkeypatch.setattr(
                    f"helix_sae.reporting.sections.{module}.{name}", lambda *_, **__: Figure()
                )


def data(rejected: pd.DataFrame | None = None, **changes: Any) -> Section:
    return data_section(report_data.table(), rejected, tables.facts(**changes))


def autoencoders(*arguments: Any, **changes: Any) -> Section:
    given = tables.metrics(*arguments, **changes)
    return autoencoder_section(given, tables.history(), tables.densities(), chosen="topk")


def associations(**changes: Any) -> Section:
    return association_section(tables.association_inputs(**changes))


def concepts(*arguments: Any, warnings: pd.DataFrame | None = None) -> Section:
    return concept_section(*tables.concepts(*arguments), warnings, tables.profiles())


def prediction(
    probe: pd.DataFrame | None = None, agreement: pd.DataFrame | None = None, **changes: Any
) -> Section:
    given = {
        "probe_metrics": tables.probe() if probe is None else probe,
        "pairs": tables.pairs(),
        "exclusions": pd.DataFrame({"source_id": ["a"], "target_id": ["b"], "reason": ["same value"]}),
        "agreement": tables.agreement() if agreement is None else agreement,
        "comparison": tables.comparison(),
    }
    return prediction_section(**{**given, **changes})


def effects(**changes: Any) -> Section:
    return effect_section(tables.effect_inputs(**changes), target="functional_mrl", q=0.05)


def comparisons(**changes: Any) -> Section:
    return comparison_section(tables.comparison_inputs(**changes))


def circuit(other: str = "same", screening: str = "none") -> Section:
    return circuit_section(tables.circuit(other), tables.steps(screening))


GOOD: dict[str, Callable[[], Section]] = {
    "data": data,
    "autoencoders": autoencoders,
    "associations": associations,
    "concepts": lambda: concepts((0.9, 0.5, 0.4), (0.6, 0.51, 0.3)),
    "prediction": prediction,
    "effects": effects,
    "comparisons": comparisons,
    "circuit": circuit,
}
NOT_RUN: dict[str, Callable[[], Section]] = {
    "autoencoders": lambda: autoencoder_section(None, None),
    "associations": lambda: association_section(AssociationInputs(None, None, None, None, None)),
    "concepts": lambda: concept_section(None, None),
    "prediction": lambda: prediction_section(None, None, None, None),
    "effects": lambda: effect_section(EffectInputs(None), target="functional_mrl"),
    "comparisons": lambda: comparison_section(ComparisonInputs(None, None)),
    "circuit": lambda: circuit_section(None, None),
}


def said(section: Section, *, tone: str | None = None, headline: bool | None = None) -> str:
    """The statements of a section in one text."""
    return " | ".join(
        s.text
        for s in section.statements
        if (tone is None or s.tone == tone) and (headline is None or s.headline == headline)
    )


def table_with(section: Section, title: str) -> ReportTable:
    (found,) = [b for b in section.blocks if isinstance(b, ReportTable) and title in b.caption]
    return found


@pytest.mark.parametrize("name", GOOD)
def test_a_good_result_is_a_section_without_a_weak_word(name: str):
    section = GOOD[name]()
    assert section.key == name
    assert said(section, headline=True)
    assert said(section, tone="weak") == ""
    assert not section.warnings
    assert not any(tile.weak for tile in section.tiles)
    assert any(isinstance(block, ReportTable) for block in section.blocks)


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("name", GOOD)
def test_the_numbers_are_json_and_the_tables_are_filled(name: str):
    section = GOOD[name]()
    json.dumps(run_summary([section]), allow_nan=False)
    for block in section.blocks:
        if isinstance(block, ReportTable):
            assert block.rows
            assert all(len(row) == len(block.columns) for row in block.rows)
        if isinstance(block, ReportFigure):
            assert len(block.uri) > 5000
            assert block.title
            assert block.caption


WEAK: dict[str, Callable[[], Section]] = {
    "autoencoders": lambda: autoencoders((np.nan, -0.5), (1.0, 1.0)),
    "associations": lambda: associations(n=0, replicated=0, partial=0),
    "concepts": lambda: concepts((0.5,), (0.6,)),
    "prediction": lambda: prediction(tables.probe(np.nan), tables.agreement(np.nan, np.nan, np.nan)),
    "effects": lambda: effects(
        effects=tables.effects(confirmed=0), designed_test=tables.designed_test(np.nan)
    ),
    "comparisons": lambda: comparisons(lead=(np.nan, np.nan), reached=False, ceiling=-0.2),
    "circuit": lambda: circuit_section(tables.circuit().assign(tau=np.nan), tables.steps()),
}


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("name", WEAK)
def test_weak_results_can_be_drawn_and_kept(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("helix_sae.reporting.document.png_uri", partial(png_uri, dpi=30))
    section = WEAK[name]()
    assert any(isinstance(block, ReportFigure) for block in section.blocks)
    assert said(section, tone="weak")
    json.dumps(run_summary([section]), allow_nan=False)


@pytest.mark.parametrize("name", NOT_RUN)
def test_a_part_that_was_not_run_says_so_and_nothing_else(name: str):
    section = NOT_RUN[name]()
    assert (section.key, section.title) == (GOOD[name]().key, GOOD[name]().title)
    assert [s.tone for s in section.statements] == ["absent"]
    assert not section.blocks
    assert not section.tiles
    assert plain(section.numbers)["run"] is False


@pytest.mark.parametrize("name", NOT_RUN)
def test_empty_tables_are_as_good_as_none(name: str):
    none = pd.DataFrame()
    empty = {
        "autoencoders": lambda: autoencoder_section(none, none, {}),
        "associations": lambda: association_section(AssociationInputs(none, none, none, none, none)),
        "concepts": lambda: concept_section(none, none, none, none),
        "prediction": lambda: prediction_section(none, none, none, none, none),
        "effects": lambda: effect_section(
            EffectInputs(none, none, none, none, none), target="functional_mrl"
        ),
        "comparisons": lambda: comparison_section(ComparisonInputs(none, none, none, none)),
        "circuit": lambda: circuit_section(none, none),
    }
    assert said(empty[name]()) == said(NOT_RUN[name]())


class TestData:
    def test_the_counts_are_those_of_the_table(self):
        table, section = report_data.table(), data()
        lengths = table["sequence"].str.len()
        text = said(section)
        assert f"240 records in {table['cluster'].nunique()} families" in text
        assert "180 library A and 60 library B" in text
        assert f"{(table['split'] == 'discovery').sum()} records" in text
        assert f"{lengths.min()} to {lengths.max()} nt long (median {lengths.median():.1f}" in text
        assert "No record was set aside." in text
        assert "helix_mini (fingerprint 0123456789ab)" in text
        assert "20,000 tokens of 240 sequences, with a marker before each codon" in text
        assert section.numbers["n_clusters"] == table["cluster"].nunique()

    def test_records_set_aside_are_counted_and_warned_of(self):
        section = data(tables.rejected(3), codon_markers="none")
        assert "3 records were set aside: 2 for their cds_start and 1 for their sequence." in said(
            section, tone="weak"
        )
        assert section.warnings == ["3 records were set aside as unusable."]
        assert "without codon markers" in said(section)
        rows = table_with(section, "Records set aside").rows
        assert rows[0] == ["cds_start", "is beyond the end", "2", "line 1"]
        assert data(tables.rejected(1)).warnings == ["1 record was set aside as unusable."]

    def test_properties_of_every_kind(self):
        table = report_data.table().assign(
            functional_none=np.nan,
            regulatory_class=["x", "y"] * 120,
            functional_flag=pd.array([True, None] * 120),
        )
        table.loc[table.index[:60], "functional_mrl"] = np.nan
        section = data_section(table, None, tables.facts())
        shown = {str(row[0]): row for row in table_with(section, "Properties").rows}
        assert shown["MRL"][2:4] == ["180", "75 %"]
        assert shown["Class"][2:] == ["240", "100 %", "2 classes", "–"]
        assert "None" not in shown
        assert shown["flag"][2:4] == ["120", "50 %"]


class TestAutoencoders:
    def test_the_numbers_in_the_words(self):
        text = said(autoencoders((0.914, 0.88)))
        assert "explain 88 to 91 % of the variance" in text
        assert "8.0 active features a token (median over 2 sites)" in text
        assert "Layer 0 mixer: 91.4 % of the variance with 8.0 of 64 features active" in text
        assert "10.0 % of the features are dead" in text

    def test_poor_and_dead_ones_are_called_so(self):
        section = autoencoders((0.91, 0.35), (0.1, 0.7))
        assert "35 to 91 %" in said(section, tone="weak", headline=True)
        assert "Layer 2 mixer: 35.0 %" in said(section, tone="weak")
        assert "Layer 0 mixer" not in said(section, tone="weak")
        first, second = section.warnings
        assert "layer 2 mixer does not explain 70 % of the variance" in first
        assert "More than half of the features of layer 2 mixer never fire" in second
        assert section.tiles[0].weak

    def test_only_the_chosen_configuration_is_spoken_of(self):
        both = pd.concat(
            [tables.metrics(), tables.metrics((0.2, 0.1)).assign(config="relu")], ignore_index=True
        )
        section = autoencoder_section(both, tables.history(), chosen="topk")
        assert "88 to 91 %" in said(section)
        assert len(table_with(section, "Held-out quality").rows) == 4
        assert {str(row[1]) for row in table_with(section, "Held-out quality").rows} == {
            "topk (used)",
            "relu",
        }
        assert "10 to 91 %" in said(autoencoder_section(both, None))

    def test_a_variance_that_is_not_defined_is_not_a_good_one(self):
        section = autoencoders((np.nan, 0.9))
        assert "Layer 0 mixer: – of the variance" in said(section, tone="weak")
        assert any("layer 0 mixer" in text for text in section.warnings)


class TestAssociations:
    def test_the_numbers_in_the_words(self):
        text = said(associations())
        assert "60 tests of 10 live features against 6 properties" in text
        assert (
            "4 associations were significant on the discovery families; 75 % of them [40, 95] replicated"
            in text
        )
        assert "2 of the 4 significant associations" in text
        assert "in 2 of 2 comparisons" in text
        assert (
            "3 % of the runs of the raw tests made any discovery (inflation factor 1.02): the false discovery rate holds"
            in text
        )

    def test_few_that_replicate_are_a_weak_result(self):
        section = associations(replicated=1)
        assert "25 % of them [40, 95] replicated" in said(section, tone="weak", headline=True)
        assert any("Only 25 %" in text for text in section.warnings)
        assert section.tiles[0].weak

    def test_none_that_is_significant(self):
        section = associations(n=0, replicated=0, partial=0)
        assert "No association was significant" in said(section, tone="weak", headline=True)
        assert section.tiles[0] == ("Associations replicated", "none", "none was significant", True)
        assert "strongest" not in said(section)

    def test_few_that_are_left_when_adjusted(self):
        assert "0 of the 4 significant associations that can be adjusted (0 %)" in said(
            associations(partial=0), tone="weak"
        )

    def test_tests_that_are_miscalibrated(self):
        assert "30 % of the runs" in said(associations(false_share=0.3), tone="weak")
        assert "more than the level allows" in said(associations(false_share=0.3), tone="weak")
        assert "was not examined" in said(associations(calibration=None), tone="absent")

    def test_high_and_low_that_disagree(self):
        disagreeing = pd.DataFrame({"agrees": [True, False, False], "hedges_g": [1.0, 0.1, -0.2]})
        assert "in 1 of 3 comparisons" in said(associations(high_low=disagreeing), tone="weak")

    def test_what_could_not_be_tested_is_named(self):
        warnings = pd.DataFrame(
            {"property": ["functional_te"], "warning": ["too_few_labels"], "detail": ["3 labels"]}
        )
        assert associations(warnings=warnings).warnings == [
            "Not tested as asked (too few labels): TE – 3 labels."
        ]
        many = pd.DataFrame(
            {"property": [f"functional_q{i}" for i in range(9)], "warning": "constant", "detail": "one value"}
        )
        assert "and 4 more" in associations(warnings=many).warnings[0]

    def test_what_a_confounder_hides(self):
        masked = tables.association_inputs(n=4, replicated=2).significant
        assert masked is not None
        text = said(associations(masked=masked.assign(partial_replicated=[True, False, False, False])))
        assert (
            "4 further associations show only with these held fixed; 1 of them (25 %) replicated on held-out families."
            in text
        )
        assert "held fixed; " not in said(associations(masked=masked.head(0)))

    def test_the_strongest_of_each_property(self):
        significant = tables.association_inputs(n=6, replicated=5).significant
        assert significant is not None
        top = top_replicated(significant.assign(property=["a", "a", "b", "b", "b", "c"]), 9)
        assert sorted(top["property"]) == ["a", "b"]
        assert (np.diff(top["validation_effect"].abs()) <= 0).all()
        shown = table_with(associations(), "best replicated").rows
        assert len(shown) == 3


class TestConcepts:
    def test_the_numbers_in_the_words(self):
        section = concepts((0.9, 0.5, 0.4), (0.6, 0.51, 0.3))
        text = said(section)
        assert "concept 0 0.90 (L0.mixer.0)" in text
        assert (
            "Of 3 concepts, a single SAE feature detects 2 better than the best neuron or principal component, 1 about as well"
            in text
        )
        assert "and 0 worse" in text
        assert section.numbers["n_ahead_of_baselines"] == 2

    def test_features_that_lose_to_neurons_are_said_to(self):
        section = concepts((0.5, 0.5, 0.4), (0.6, 0.51, 0.7))
        weak = said(section, tone="weak", headline=True)
        assert "detects 0 better" in weak
        assert "1 about as well" in weak
        assert "and 2 worse" in weak
        assert "the features are no better than these" in weak

    def test_as_many_ahead_as_behind_is_no_lead(self):
        assert "no better than these" in said(concepts((0.9, 0.5), (0.6, 0.9)), tone="weak")

    def test_what_the_input_gives_away_is_no_rival_of_a_neuron_but_keeps_a_concept_from_passing(self):
        matches, baselines = tables.concepts((0.9, 0.6), (0.5, 0.5))
        judged = pd.concat(
            [
                baselines.assign(passes=[True, False, False, False]),
                baselines.head(2).assign(kind="markers", f1=[0.2, 1.0], passes=False),
                baselines.head(2).assign(kind="random_model", f1=[0.7, 0.3], passes=[True, False]),
            ],
            ignore_index=True,
        )
        section = concept_section(matches, judged)
        text = said(section)
        assert "detects 2 better than the best neuron" in text
        assert "features detect 1 concept: concept 0." in text
        assert (
            "With random weights, the same architecture and procedure detect in this sense: concept 0."
            in text
        )
        assert section.numbers["passing"] == ["concept_0"]
        table = table_with(section, "best SAE feature")
        assert {row[0]: row[-3] for row in table.rows} == {"concept 0": "yes", "concept 1": ""}
        nothing = concept_section(matches, judged.assign(passes=False))
        assert "features detect 0 concepts: none." in said(nothing, tone="weak", headline=True)

    def test_concepts_that_are_too_rare(self):
        warnings = pd.DataFrame({"concept": ["are_nonamer"], "warning": "too rare", "detail": "2 instances"})
        assert "Too rare in these sequences to be matched: are nonamer." in said(
            concepts(warnings=warnings), tone="absent"
        )

    def test_the_best_rival_of_each(self):
        best = compare_kinds(*tables.concepts()).set_index("concept")
        assert best["rival_f1"].to_dict() == {"concept_0": 0.6, "concept_1": 0.51, "concept_2": 0.7}
        assert best["precision"].tolist() == [0.8] * 3
        matches, baselines = tables.concepts()
        alone = concept_section(matches, baselines[baselines["kind"] == "sae"])
        assert "No other detectors were compared." in said(alone, tone="absent")


class TestPrediction:
    def test_the_numbers_in_the_words(self):
        text = said(prediction())
        assert (
            "A ridge regression on the pooled embedding predicts MRL with R² = 0.800 on 120 sequences of 40 held-out families"
            in text
        )
        assert "(0.820 out of fold" in text
        assert "the floor is 0.30." in text
        assert (
            "40 pairs of sequences from 20 families (20 for discovery, 20 held out), 10 of them shams" in text
        )
        assert "15 mother and 15 uaug make" in text
        assert "1 candidate left out: 1 same value." in text
        assert (
            "Over 30 held-out pairs of 12 families, predicted and measured differences of MRL correlate with Spearman's ρ = 0.50 [0.30, 0.70]"
            in text
        )
        assert "; they agree in sign in 70 %." in text

    def test_signs_are_counted_where_there_are_any(self):
        decoys = said(prediction(agreement=tables.agreement(n_signed=24)))
        assert "they agree in sign in 70 % of the 24 whose measured difference is not zero." in decoys
        none = tables.agreement(n_signed=0, sign_agreement=np.nan)
        assert "agree in sign" not in said(prediction(agreement=none))

    def test_a_probe_below_its_floor(self):
        section = prediction(tables.probe(0.12, 0.3))
        assert "R² = 0.120" in said(section, tone="weak", headline=True)
        assert "the floor is 0.30, which it does not reach." in said(section, tone="weak")
        assert any("does not reach its floor (0.30)" in text for text in section.warnings)
        assert section.tiles[0].weak
        assert plain(section.numbers)["probe"]["below_floor"] is True

    @pytest.mark.parametrize(
        ("metric", "value", "words"),
        [
            ("r2", -0.4, "is no better than predicting the mean"),
            ("r2", 0.0, "is no better than predicting the mean"),
            ("auc", 0.45, "is no better than guessing"),
            ("r2", np.nan, "does not reach its floor (−10.00)"),
        ],
    )
    def test_a_probe_without_any_skill(self, metric: str, value: float, words: str):
        """Whatever floor somebody set: what is worse than the mean is no finding."""
        section = prediction(tables.probe(value, -10.0, metric=metric))
        assert f"The read-out {words}" in section.warnings[0]
        short = (
            words.removeprefix("is ") if "better" in words else "the floor is −10.00, which it does not reach"
        )
        assert short in said(section, tone="weak", headline=True)
        assert section.tiles[0].weak

    @pytest.mark.parametrize(("low", "high"), [(-0.1, 0.4), (-0.6, -0.2), (np.nan, np.nan)])
    def test_differences_that_are_not_predicted(self, low: float, high: float):
        section = prediction(agreement=tables.agreement(0.1, low, high))
        assert "ρ = 0.10" in said(section, tone="weak", headline=True)
        assert section.tiles[1].weak
        assert section.warnings

    def test_an_interval_below_zero_is_not_said_to_include_it(self):
        section = prediction(agreement=tables.agreement(-0.4, -0.6, -0.2))
        assert "includes zero" not in said(section) + " ".join(section.warnings)
        assert "The interval lies below zero." in said(section, tone="weak")
        assert "the wrong way round" in section.warnings[0]

    def test_too_few_pairs_to_correlate(self):
        section = prediction(agreement=tables.agreement(np.nan, np.nan, np.nan, n_pairs=2))
        assert "Too few held-out pairs" in said(section, tone="weak", headline=True)
        assert section.tiles[1].weak

    def test_what_the_simulator_expects_is_nowhere_called_known_or_true(self):
        """Of edits of a user's own sequences nobody knows the effect; the simulator's formula has an expectation."""
        of_edits = prediction(
            pairs=tables.pairs().assign(difference_kind="expected"),
            comparison=tables.comparison().assign(difference_kind="expected"),
        )
        caption = table_with(of_edits, "Predicted against simulator-expected").caption
        beside = effects(
            designed=tables.designed().assign(difference_kind="expected"),
            positions=tables.positions().assign(difference_kind="expected"),
        )
        assert "Predicted against simulator-expected" in [tile.label for tile in of_edits.tiles]
        assert "predicted and simulator-expected differences of MRL" in said(of_edits)
        assert "direction of the simulator-expected difference" in said(beside)
        shown = [
            said(of_edits),
            said(beside),
            caption,
            *(t.label + t.note for t in (*of_edits.tiles, *beside.tiles)),
        ]
        for block in beside.blocks:
            if isinstance(block, ReportTable):
                shown += [block.caption, *(column.title for column in block.columns)]
        assert not [text for text in shown if "known diff" in text.lower() or "true diff" in text.lower()]

    def test_without_pairs(self):
        section = prediction(pairs=None, exclusions=None, agreement=pd.DataFrame(), comparison=None)
        assert "No pairs of sequences were formed." in said(section, tone="absent")
        assert "were not compared" in said(section, tone="absent")
        assert len(section.tiles) == 1

    def test_indels_are_kept_apart(self):
        both = pd.concat(
            [tables.agreement(0.9, 0.8, 0.95, has_indel=True), tables.agreement()], ignore_index=True
        )
        assert "ρ = 0.50" in said(prediction(agreement=both))
        assert len(table_with(prediction(agreement=both), "Predicted against measured").rows) == 2
        only = tables.agreement(0.9, 0.8, 0.95, has_indel=True)
        assert "ρ = 0.90" in said(prediction(agreement=only))

    def test_the_model_s_own_head(self):
        text = said(prediction(tables.probe(kind="head", metric="auc")))
        assert "The model's own phenotype head predicts MRL with AUC = 0.800" in text
        assert "out of fold" not in text


class TestEffects:
    def test_the_numbers_in_the_words(self):
        section = effects()
        text = said(section)
        assert (
            "Of 8 features and error nodes that differ within pairs, measured by running the model on" in text
        )
        assert (
            "the 6 of largest effect on the discovery pairs were tested on held-out families: 3 were confirmed at q ≤ 0.05."
            in text
        )
        assert "L0.mixer.0 (+0.80 [0.70, 0.90], q = 0.0040)" in text
        assert section.tiles[0].value == "3 of 6"

    def test_none_confirmed(self):
        section = effects(effects=tables.effects(confirmed=0))
        weak = said(section, tone="weak", headline=True)
        assert "none was confirmed at q ≤ 0.05." in weak
        assert "The largest effects, none of them confirmed," in weak
        assert section.tiles[0].weak
        assert "exploratory" in section.warnings[0]

    def test_one_confirmed_is_one(self):
        assert "1 was confirmed" in said(effects(effects=tables.effects(confirmed=1)))

    def test_errors_that_outweigh_the_features(self):
        text = said(effects(effects=tables.effects(error=5.0)), tone="weak")
        assert "At layer 0 mixer and layer 2 mixer the reconstruction error" in text
        assert "reconstruction error" not in said(effects(effects=tables.effects(error=0.05)))

    def test_upstream_aug_edits_are_felt(self):
        text = said(effects())
        assert "Edits that make or break an upstream AUG (20) are felt more than their shams (20)" in text
        assert "median total effect 1.00 against 0.100, one-sided Mann–Whitney p = 1×10⁻⁶" in text
        assert "known difference in 90 % of those edits [80, 95]" in text
        made = tables.designed().assign(difference_kind="true")
        assert "true difference in 90 % of those edits" in said(effects(designed=made))

    @pytest.mark.parametrize("p_value", [0.001, 0.2, np.nan])
    def test_upstream_aug_edits_that_are_not(self, p_value: float):
        weak = said(effects(designed_test=tables.designed_test(p_value)), tone="weak")
        assert "are not clearly felt more than their shams" in weak
        assert "not told apart from shams: kozak change" in weak

    def test_signs_that_go_the_wrong_way(self):
        assert "in 40 % of those edits" in said(
            effects(designed_test=tables.designed_test(sign=0.4)), tone="weak"
        )

    def test_decoys_that_pass_are_warned_of(self):
        assert "they do not pass" in said(effects(), tone="finding")
        section = effects(designed=tables.designed(decoys=0.9))
        assert "they pass as causes, which they are not" in said(section, tone="weak", headline=True)
        assert any("Decoys are felt more than shams" in text for text in section.warnings)

    def test_the_test_of_decoys_is_scipy_s(self):
        from scipy.stats import mannwhitneyu

        designed = tables.designed(decoys=0.12)
        found = decoy_test(designed)
        sizes = {role: part["total_effect"] for role, part in designed.groupby("role")}
        assert found is not None
        assert found["p_value"] == mannwhitneyu(sizes["decoy"], sizes["sham"], alternative="greater").pvalue
        assert found["median"] == sizes["decoy"].median()
        assert decoy_test(designed[designed["role"] != "decoy"]) is None

    def test_estimates_that_disagree_with_exact_effects(self):
        assert "ρ = 0.90 to 0.95 over 2 sites" in said(effects(), tone="finding")
        section = effects(agreement=tables.estimates((0.95, 0.4)))
        assert "It is not to be relied on at layer 2 mixer." in said(section, tone="weak")

    def test_without_designs_and_estimates(self):
        section = effects(designed=None, designed_test=None, agreement=None, positions=None)
        assert "no designed edits" in said(section, tone="absent")
        assert "were not compared with exact" in said(section, tone="absent")

    def test_the_table_holds_every_feature_tested(self):
        rows = table_with(effects(), "The features tested").rows
        assert len(rows) == 6
        assert [row[5] for row in rows] == [True] * 3 + [False] * 3
        assert rows[0][2] == "+0.800"

    def test_truths_that_were_stored_as_text(self):
        stored = tables.effects()
        stored = stored.assign(**{c: stored[c].astype(str) for c in ("selected", "confirmed")})
        assert said(effects(effects=stored)) == said(effects())


class TestComparisons:
    def test_the_numbers_in_the_words(self):
        section = comparisons()
        text = said(section)
        assert (
            "recovers 90 % [80, 100] of the difference between the two predictions, and 100 % with the reconstruction errors"
            in text
        )
        assert "the best single site, layer 2 mixer, 30 %" in text
        assert (
            "On 30 held-out pairs, SAE features score CPR 0.70 [0.60, 0.80] and CMD 0.30 [0.20, 0.40]; 16 of 64 reach a faithfulness of 80 %"
            in text
        )
        assert (
            "SAE features come closer to the full effect than principal components (lead +0.12 [0.05, 0.20])"
            in text
        )
        assert "is worth it: it does better than a random order (lead +0.200 [0.100, 0.300])" in text
        assert (
            "75 % of the features' total effect is at layer 2 mixer, spread over about 8.0 features" in text
        )
        assert section.tiles[0].value == "1 of 1"

    @pytest.mark.parametrize(
        ("lead", "words"),
        [
            ((-0.3, -0.1), "come less close to it than principal components (lead −0.20 [−0.30, −0.10])"),
            ((-0.1, 0.1), "are no better than principal components"),
            ((np.nan, np.nan), "cannot be told apart from principal components"),
        ],
    )
    def test_features_that_lose_to_a_baseline_are_said_to(self, lead: tuple[float, float], words: str):
        section = comparisons(lead=lead)
        assert words in said(section, tone="weak", headline=True)
        assert section.tiles[0].value == "0 of 1"
        assert section.tiles[0].weak

    @pytest.mark.parametrize(
        ("lead", "words"),
        [((-0.3, -0.1), "does worse than a random order"), ((-0.1, 0.1), "is no better than a random order")],
    )
    def test_a_ranking_that_is_not_worth_it(self, lead: tuple[float, float], words: str):
        assert words in said(comparisons(own_lead=lead), tone="weak")

    def test_a_low_ceiling(self):
        section = comparisons(ceiling=0.3)
        assert "recovers 30 %" in said(section, tone="weak", headline=True)
        assert "All features together recover 30 %" in section.warnings[0]

    def test_a_level_that_is_never_reached(self):
        weak = said(comparisons(reached=False), tone="weak", headline=True)
        assert "no number of them reaches a faithfulness of 80 % (all 64 together: 60 %)" in weak

    def test_without_ceilings_and_blocks(self):
        section = comparisons(ceilings=None, blocks=None)
        assert "was not measured" in said(section, tone="absent")
        assert section.warnings == []

    def test_verdicts_go_by_the_interval_alone(self):
        baselines = tables.comparison_inputs(lead=(0.0, 0.2)).baselines
        assert baselines is not None
        assert [v["verdict"] for v in judge(baselines)] == ["better", "no better"]


class TestCircuit:
    def test_the_numbers_in_the_words(self):
        section = circuit()
        text = said(section)
        assert (
            "leaves 5 nodes at τ = 0.001 (divergence from the target 0.00200 nats) and 2 at τ = 0.1 (0.150 nats)"
            in text
        )
        assert "At τ = 0.1 what is left is L0.mixer.1 and L0.mixer.0." in text
        assert "Circuits found in 2 visiting orders share 1.00 of their nodes" in text
        assert plain(section.numbers)["tau_shown"] == 0.1
        assert [row[:2] for row in table_with(section, "Members").rows] == [
            ["L0.mixer.1", "−0.9000"],
            ["L0.mixer.0", "+0.5000"],
        ]

    def test_an_order_that_decides_is_said_to(self):
        assert "depends much on the order" in said(circuit("other"), tone="weak")

    def test_screening_is_said(self):
        assert "tried in groups first" in said(circuit(screening="halving"))
        assert "tried in groups first" not in said(circuit())

    def test_no_node_that_survives(self):
        none = tables.circuit().assign(tau=np.nan)
        section = circuit_section(none, tables.steps())
        assert "leaves 0 nodes" in said(section, tone="weak", headline=True)
        assert "No node survives any threshold." in said(section, tone="weak")

    def test_members_are_nested(self):
        table = tables.circuit()
        small, large = (
            set(map(tuple, members_at(table, tau)[["site", "feature"]].to_numpy())) for tau in (0.1, 0.001)
        )
        assert small == {(SITES[0], "0"), (SITES[0], "1")}
        assert small < large
        assert len(large) == 5
        sizes = circuit_sizes(table, tables.steps())
        assert sizes[["n_nodes", "n_errors"]].to_numpy().tolist() == [[5, 1], [2, 0]]
        assert surviving_members(table)["feature"].tolist() == ["1", "0"]
        assert surviving_members(table.head(0)).empty
        assert surviving_members(table.assign(tau=np.nan)).empty

    def test_overlap_of_orders_by_hand(self):
        overlap = order_overlap(tables.circuit("other"))
        # at 0.001: {5 nodes} and {error, 9}: one in common of six; at 0.1: {0, 1} and {9}
        assert overlap["jaccard"].tolist() == pytest.approx([1 / 6, 0.0])


@pytest.mark.parametrize("name", GOOD)
def test_no_number_is_written_as_nan(name: str):
    section = GOOD[name]()
    cells = [
        cell
        for block in section.blocks
        if isinstance(block, ReportTable)
        for row in block.rows
        for cell in row
        if isinstance(cell, str)
    ]
    assert not re.search(r"\bnan\b|\binf\b|\bNone\b|<NA>", " | ".join([said(section), *cells]))
