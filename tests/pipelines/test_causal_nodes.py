"""Nodes of the causal pipeline on what users get wrong: each a clear error, or an exclusion that is named and counted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from helix_twin import tiny_network
from pydantic import ValidationError
from safetensors.numpy import save_file

from helix_sae.causal.baselines import BASELINES
from helix_sae.causal.comparison import prediction_agreement
from helix_sae.causal.read_out import Probe
from helix_sae.errors import AnalysisError, ConfigurationError, DataError, ModelError, WeakProbeError
from helix_sae.models.helix.architecture import save_network
from helix_sae.models.helix.heads import HEAD_DESCRIPTION, HEAD_WEIGHTS
from helix_sae.models.registry import ModelHandle, handle_for
from helix_sae.mrna.records import RawRecord, RawRecords, Reporter
from helix_sae.pipelines.causal_acdc import causes, circuits, nodes, read_out
from helix_sae.pipelines.causal_acdc.experiment import set_up, some_pairs
from helix_sae.pipelines.causal_acdc.parameters import (
    Baseline,
    CausalParameters,
    CauseParameters,
    CurveParameters,
)
from helix_sae.pipelines.ingestion.parameters import IngestionParameters
from helix_sae.sae import InputScaling, TopKConfig, random_autoencoder

N, D = 120, 6


def parameters(**changes: Any) -> CausalParameters:
    given: dict[str, Any] = {
        "target": "functional_mrl",
        "probe": {"kind": "ridge", "floor": 0.3},
        "pairs": {"source": "natural", "max_edit_distance": 3},
        "effects": {},
        "acdc": {"taus": [0.01]},
        "curves": {},
    }
    for name, value in changes.items():
        given[name] = {**given[name], **value} if isinstance(value, dict) else value
    return CausalParameters.model_validate(given)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for family in range(N // 2):
        parent = rng.choice(list("ACGU"), 24)
        child = parent.copy()
        child[5] = "A" if parent[5] != "A" else "C"
        rows += [("".join(s), f"f{family}") for s in (parent, child)]
    frame = pd.DataFrame(rows, columns=["sequence", "cluster"])
    return frame.assign(
        sequence_id=[f"s{i}" for i in range(N)],
        cds_start=pd.array([pd.NA] * N, "Int64"),
        cds_end=pd.array([pd.NA] * N, "Int64"),
        functional_mrl=rng.normal(size=N),
        split=np.where(np.arange(N) // 2 % 3 == 0, "validation", "discovery"),
    )


@pytest.fixture(scope="module")
def embeddings(table: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(N, D))
    x[:, 0] = table["functional_mrl"] + 0.3 * rng.normal(size=N)
    return pd.DataFrame(x, index=pd.Index(table["sequence_id"]))


@pytest.fixture(scope="module")
def handle(tmp_path_factory: pytest.TempPathFactory) -> ModelHandle:
    directory = tmp_path_factory.mktemp("tiny")
    save_network(tiny_network(), directory)
    return handle_for(directory, device="cpu")


def nothing_further(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    further = read_out.tabulate_further(RawRecords([], []), table, ingestion(), parameters())
    return pd.DataFrame(np.zeros((0, D)), index=further["sequence_id"]), further


def ingestion(**options: Any) -> IngestionParameters:
    return IngestionParameters.model_validate({"split": {}, **options})


def read_out_of(table, embeddings, handle, **changes):
    return read_out.read_out(embeddings, table, *nothing_further(table), handle, parameters(**changes))


def test_bounds_of_the_parameters_are_those_of_the_code():
    assert get_args(Baseline) == BASELINES
    assert CurveParameters().baselines == list(BASELINES)
    with pytest.raises(ValidationError, match="2000"):
        CurveParameters(n_resamples=1999)
    with pytest.raises(ValidationError):
        CurveParameters.model_validate({"baselines": ["umap"]})


def test_a_missing_target_column_is_named(table, embeddings, handle):
    with pytest.raises(AnalysisError, match=r"no column 'functional_te'.* functional_mrl"):
        read_out_of(table, embeddings, handle, target="functional_te")
    words = table.assign(functional_mrl=["high"] * N)
    with pytest.raises(AnalysisError, match="positive_class"):
        read_out_of(words, embeddings, handle)


def test_a_probe_below_the_floor_stops_the_run_unless_overridden(table, embeddings, handle):
    noise = table.assign(functional_mrl=np.random.default_rng(5).normal(size=N))
    with pytest.raises(WeakProbeError, match="below the floor"):
        read_out_of(noise, embeddings, handle)
    _, metrics, _ = read_out_of(noise, embeddings, handle, probe={"override_floor": True})
    assert metrics["validation"].iloc[0] < metrics["floor"].iloc[0]


def test_only_sequences_that_can_be_compared_are_embedded(table, handle):
    holes = table.assign(
        functional_mrl=table["functional_mrl"].where(np.arange(N) % 4 > 0),
        sequence=np.where(np.arange(N) == 1, "A" * 60, table["sequence"]),
    )
    found = read_out.embed(holes, handle, parameters(pairs={"max_length": 50}))
    expected = [f"s{i}" for i in range(N) if i % 4 and i != 1]
    assert found.index.tolist() == expected
    assert found.shape == (len(expected), 16)
    with pytest.raises(AnalysisError, match="No sequence with a known mrl is as short as 10 nt"):
        read_out.embed(table, handle, parameters(pairs={"max_length": 10}))
    with pytest.raises(AnalysisError, match="No property to explain is named: --target COLUMN"):
        read_out.embed(table, handle, parameters(target="label"))
    with pytest.raises(AnalysisError, match="no column"):
        read_out.embed(table.drop(columns="functional_mrl"), handle, parameters())


def test_a_category_is_read_as_one_class_against_the_others(table, embeddings, handle):
    words = table.assign(functional_mrl=np.where(table["functional_mrl"] > 0, "high", "low"))
    probe, metrics, _ = read_out_of(
        words, embeddings, handle, probe={"kind": "logistic", "positive_class": "high", "floor": 0.6}
    )
    assert metrics["metric"].iloc[0] == "auc"
    assert metrics["validation"].iloc[0] > 0.8
    assert probe.direction[0] > 0


def test_a_head_that_is_not_there_is_an_error(table, embeddings, handle):
    with pytest.raises(ModelError, match="no head for 'functional_mrl'"):
        read_out_of(table, embeddings, handle, probe={"kind": "head"})


def test_pairs_that_cannot_be_used_are_named_and_counted(table):
    twin = table.iloc[[0]].assign(sequence_id="twin", functional_mrl=9.0)
    longer = table.iloc[[0]].assign(
        sequence_id="longer", sequence=table["sequence"].iloc[0] + "ACGUACG", functional_mrl=9.0
    )
    unknown = table.iloc[[0]].assign(
        sequence_id="unknown", sequence="C" + table["sequence"].iloc[0], functional_mrl=np.nan
    )
    whole = pd.concat([table, twin, longer, unknown], ignore_index=True)
    designs = pd.DataFrame({"source": pd.Series(dtype=str)})
    wide = {"max_edit_distance": 7, "max_length_ratio": 1.5, "num_sequence_pairs": None}
    pairs, exclusions = read_out.pair(whole, designs, parameters(pairs=wide))
    reasons = exclusions["reason"].value_counts()
    assert reasons["identical sequences"] == 1
    assert reasons["functional_mrl missing"] > 0
    assert pairs.loc[pairs["target_id"] == "longer", "has_indel"].all()
    assert (pairs["target_id"] == "longer").any()
    tight, _ = read_out.pair(whole, designs, parameters(pairs={**wide, "max_length_ratio": 1.1}))
    assert not tight["has_indel"].any()
    with pytest.raises(AnalysisError, match="below min_target_diff"):
        read_out.pair(whole, designs, parameters(pairs={**wide, "min_target_diff": 1e6}))


@pytest.mark.parametrize("max_length", [None, 200])
def test_natural_pairs_need_no_designed_ones(table, max_length):
    """Where nobody put the demo, as on a cluster of one's own, there is no table of designed pairs."""
    wanted = {"max_edit_distance": 7, "max_length": max_length}
    pairs, _ = read_out.pair(table, pd.DataFrame(), parameters(pairs=wanted))
    assert len(pairs)
    with pytest.raises(AnalysisError, match="There are no designed pairs"):
        read_out.pair(table, pd.DataFrame(), parameters(pairs={**wanted, "source": "designed"}))


def test_edits_of_a_user_s_own_sequences_with_motifs(table):
    coding = table.assign(
        sequence="ACGAUGUUUAUUUAGG" + table["sequence"] + "AUGGCGAAA", cds_start=pd.array([40] * N, "Int64")
    )
    wanted = {"source": "edited", "motifs": {"are": "AUUUA"}, "edits_per_kind": 5}
    pairs, exclusions = read_out.pair(coding, pd.DataFrame(columns=["source"]), parameters(pairs=wanted))
    assert (pairs["difference_kind"] == "expected").all()
    assert {"uaug_break", "main_kozak_plus4"} <= set(pairs["kind"])
    assert pairs["is_sham"].any()
    # What a user's motif does to the target is not known: counted, not guessed.
    assert (exclusions["reason"] == "functional_mrl not defined for the pair").sum() >= 5
    only, _ = read_out.pair(
        coding, pd.DataFrame(columns=["source"]), parameters(pairs={**wanted, "kinds": ["uaug_break"]})
    )
    assert set(only["kind"]) == {"uaug_break"}
    with pytest.raises(DataError, match="frameshift"):
        read_out.pair(
            coding, pd.DataFrame(columns=["source"]), parameters(pairs={**wanted, "kinds": ["frameshift"]})
        )


def test_edits_for_a_property_that_the_mechanism_does_not_know(table):
    """They are kept, their differences are missing, and nothing is called expected or known."""
    coding = table.assign(
        sequence="ACGAUGUUUAUUUAGG" + table["sequence"] + "AUGGCGAAA", cds_start=pd.array([40] * N, "Int64")
    ).rename(columns={"functional_mrl": "functional_te_hek293"})
    wanted = parameters(
        target="te_hek293", pairs={"source": "edited", "motifs": {"are": "AUUUA"}, "edits_per_kind": 5}
    )
    pairs, exclusions = read_out.pair(coding, pd.DataFrame(columns=["source"]), wanted)
    assert (pairs["difference_kind"] == "unknown").all()
    assert pairs["difference"].isna().all()
    assert {"uaug_break", "motif_are"} <= set(pairs["kind"])
    assert not exclusions["reason"].str.contains("not defined").any()
    rows = some_pairs(pairs, "discovery", 100, 0)
    assert len(rows) > 0
    assert not pairs["is_sham"].iloc[rows].any()
    agreement = prediction_agreement(np.zeros(len(pairs)), pairs)
    assert agreement.empty
    assert "spearman" in agreement.columns


def test_pairs_of_a_category_differ_in_the_class_that_is_explained():
    sites = ["nucleus", "cytosol", "membrane", None]
    table = pd.DataFrame(
        {
            "sequence_id": [f"s{i}" for i in range(4)],
            "sequence": ["ACGUACGUACGUAAA", "ACGUACGUACGUAAC", "ACGUACGUACGUAAG", "ACGUACGUACGUAAU"],
            "cds_start": pd.array([pd.NA] * 4, "Int64"),
            "cds_end": pd.array([pd.NA] * 4, "Int64"),
            "cluster": ["a"] * 4,
            "split": ["discovery"] * 4,
            "functional_site": pd.Categorical(sites),
        }
    )
    wanted = parameters(
        target="site", probe={"kind": "logistic", "positive_class": "nucleus"}, pairs={"source": "natural"}
    )
    pairs, exclusions = read_out.pair(table, pd.DataFrame(columns=["source"]), wanted)
    differences = pairs.set_index(["source_id", "target_id"])["difference"]
    assert differences.to_dict() == {("s0", "s1"): -1.0, ("s0", "s2"): -1.0, ("s1", "s2"): 0.0}
    assert (exclusions["reason"] == "functional_site missing").sum() == 3


def test_a_block_without_an_autoencoder_is_an_error(table, handle):
    sae = random_autoencoder(
        TopKConfig(k=2, expansion_factor=2).resolve(16), InputScaling(torch.zeros(16), 1.0), 0
    )
    pairs, _ = read_out.pair(table, pd.DataFrame(columns=["source"]), parameters())
    saes = {"layers.0.mixer": sae}
    probe = random_probe()
    assert (
        set_up(handle, saes, probe, pairs, parameters(target_blocks=[0])).dictionaries.keys() == saes.keys()
    )
    with pytest.raises(ConfigurationError, match=r"no autoencoder for block 2.*layers\.0\.mixer"):
        set_up(handle, saes, probe, pairs, parameters(target_blocks=[0, 2]))
    with pytest.raises(AnalysisError, match=r"stability of those of layers\.0\.mixer is unknown"):
        set_up(handle, saes, probe, pairs, parameters(certified_only=True))
    certified = ["yes" if feature % 2 else "no" for feature in range(sae.d_sae)]
    sae.stability = pd.DataFrame({"certified": certified})
    stored = set_up(handle, saes, probe, pairs, parameters(certified_only=True)).dictionaries
    assert stored["layers.0.mixer"].spoken is not None
    assert stored["layers.0.mixer"].spoken.tolist() == [c == "yes" for c in certified]


def random_probe() -> Probe:
    weight = np.random.default_rng(0).normal(size=(16, 1))
    return Probe("ridge", "functional_mrl", np.zeros(16), np.ones(16), (weight,), (np.zeros(1),), 0.5)


def test_causes_of_edits_that_are_made_and_of_variants_that_are_there(table, handle):
    config = TopKConfig(k=4, expansion_factor=2).resolve(16)
    saes = {"layers.0.mixer": random_autoencoder(config, InputScaling(torch.zeros(16), 1.0), 0)}
    coding = table.assign(
        sequence="ACGAUGUUUAUUUAGG" + table["sequence"] + "AUGGCGAAA", cds_start=pd.array([40] * N, "Int64")
    )
    few = {"exact_top": 6}
    known = pd.DataFrame({"site": "layers.0.mixer", "feature": np.arange(32), "stability": 1.0})
    known["certified"] = np.where(known["feature"] < 16, "yes", "no")
    for source, kinds in (("edited", {"uaug_break"}), ("natural", set())):
        given = parameters(
            pairs={"source": source, "edits_per_kind": 12, "max_edit_distance": 3}, effects=few
        ).model_copy(
            update={"causes": CauseParameters(edits_per_kind=8, kinds=["uaug_break", "cpg_transposition"])}
        )
        pairs, _ = read_out.pair(coding, pd.DataFrame(columns=["source"]), given)
        experiment = set_up(handle, saes, random_probe(), pairs, given)
        exact = nodes.measure(experiment, nodes.estimate(experiment), given)
        matrix, summary, kept = causes.find_causes(experiment, handle, coding, pairs, exact, known, given)
        assert kinds <= set(summary["kind"])
        assert set(matrix["kind"]) == set(summary["kind"])
        assert (matrix["n_clusters"] >= 5).all()
        assert matrix["q_value"].between(0, 1).all()
        assert set(matrix["certified"]) <= {"yes", "no"}
        assert len(kept) == summary["n_pairs"].sum()
        shares = summary[["recovered_by_certified", "recovered_by_all"]].dropna()
        assert len(shares)
    unknown = known.assign(certified="unknown")
    _, summary, _ = causes.find_causes(experiment, handle, coding, pairs, exact, unknown, given)
    assert summary["n_certified"].isna().all()
    bare = table.assign(cds_start=pd.array([pd.NA] * N, "Int64"))
    with pytest.raises(AnalysisError, match="start codon"):
        causes.find_causes(
            experiment, handle, bare, pairs, exact, known, parameters(pairs={"source": "edited"})
        )


def raw(*rows: tuple[str, float | str]) -> RawRecords:
    return RawRecords(
        [RawRecord("more.csv", f"line {i + 2}", {"utr": s, "mrl": v}) for i, (s, v) in enumerate(rows)], []
    )


def test_further_records_help_the_probe_and_leak_nothing(table, embeddings, handle):
    rng = np.random.default_rng(3)
    fresh = [("".join(rng.choice(list("ACGU"), 24)), float(v)) for v in rng.normal(size=30)]
    held = table.loc[table["split"] == "validation", "sequence"].iloc[0]
    found_on = table.loc[table["split"] == "discovery", "sequence"].iloc[0]
    near_held, near_found = held[:-1] + ("A" if held[-1] != "A" else "C"), found_on[:-1] + "N"
    given = raw(
        *fresh, (held, 1.0), (near_held, 2.0), (near_found, 3.0), (fresh[0][0], 4.0), ("ACGU" * 6, "")
    )
    read = ingestion(
        columns={"sequence": "utr", "functional_mrl": "mrl", "mother": "mother", "reads": "reads"}
    )
    further = read_out.tabulate_further(given, table, read, parameters())
    assert set(further["sequence"]) == {*(s for s, _ in fresh), near_found}
    cluster = further.loc[further["sequence"] == near_found, "cluster"].iloc[0]
    assert cluster == table.loc[table["sequence"] == found_on, "cluster"].iloc[0]
    capped = read_out.tabulate_further(given, table, read, parameters(probe={"max_extra": 5}))
    assert len(capped) <= 5
    x = rng.normal(size=(len(further), D))
    x[:, 0] = further["functional_mrl"]
    # Measured on another scale: seven units higher.
    further = further.assign(functional_mrl=further["functional_mrl"] + 7.0)
    _, metrics, predictions = read_out.read_out(
        embeddings, table, pd.DataFrame(x, index=further["sequence_id"]), further, handle, parameters()
    )
    assert metrics["n_further"].iloc[0] == len(further)
    assert metrics["out_of_fold_further"].iloc[0] > 0.8
    assert metrics["validation"].iloc[0] > 0.8
    assert metrics["n_validation"].iloc[0] == (table["split"] == "validation").sum()
    assert predictions["is_further"].sum() == len(further)
    assert not predictions.loc[predictions["is_further"], "split"].eq("validation").any()


def test_further_records_that_do_not_fit_are_an_error(table):
    read = ingestion(columns={"sequence": "utr", "functional_mrl": "mrl"}, reporter=Reporter().model_dump())
    with pytest.raises(DataError, match="None of the further labelled records"):
        read_out.tabulate_further(raw(("ACGUACGU", "")), table, read, parameters())
    with pytest.raises(DataError, match="no column 'functional_te'"):
        read_out.tabulate_further(raw(("ACGUACGU", 1.0)), table, read, parameters(target="functional_te"))
    with pytest.raises(DataError, match=r"more\.csv, line 2, sequence"):
        read_out.tabulate_further(raw(("ACGX", 1.0)), table, read, parameters())


def test_fine_tuned_heads_are_read_by_their_outputs(table, handle, tmp_path: Path):
    save_network(tiny_network(), tmp_path)
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(2, 32)).astype(np.float32), rng.normal(size=2).astype(np.float32)
    save_file({"weight": weight, "bias": bias}, tmp_path / HEAD_WEIGHTS)
    description = tmp_path / HEAD_DESCRIPTION
    description.write_text('{"task": "regression", "outputs": ["functional_te", "functional_mrl"]}')
    tuned = handle_for(tmp_path, device="cpu")
    given = parameters(probe={"kind": "head", "floor": -1e9})
    embedding = read_out.embed(table, tuned, given)
    assert embedding.shape == (N, 32)
    empty = read_out.embed(table.iloc[:0], tuned, given)
    assert empty.shape == (0, 32)
    _, further = nothing_further(table)
    probe, _, _ = read_out.read_out(embedding, table, empty, further, tuned, given)
    np.testing.assert_allclose(
        probe.predict(embedding.to_numpy()), embedding.to_numpy() @ weight[1] + bias[1], rtol=1e-4
    )
    with pytest.raises(ModelError, match="no head for 'functional_x'"):
        read_out.read_out(
            embedding, table.assign(functional_x=1.0), empty,
            further.assign(functional_x=1.0), tuned, given.model_copy(update={"target": "functional_x"}),
        )  # fmt: skip
    description.write_text('{"task": "classification", "outputs": ["low", "high"]}')
    words = table.assign(functional_mrl=np.where(table["functional_mrl"] > 0, "high", "low"))
    chosen = parameters(probe={"kind": "head", "positive_class": "high", "floor": 0.0})
    probe, metrics, _ = read_out.read_out(
        embedding, words, empty, further, handle_for(tmp_path, device="cpu"), chosen
    )
    logits = embedding.to_numpy() @ weight.T + bias
    np.testing.assert_allclose(
        probe.predict(embedding.to_numpy()), logits[:, 1] - logits[:, 0], rtol=1e-3, atol=1e-5
    )
    assert metrics["metric"].iloc[0] == "auc"


class _Shards:
    """Activations of some tokens, as the store hands them out."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays
        self.n_tokens = len(next(iter(arrays.values())))

    def parts(self, sites):
        yield SimpleNamespace(activations={site: self.arrays[site] for site in sites})


def test_every_node_from_effects_to_figures(table, handle):
    """The whole pipeline behind the pairs, on a tiny model: what one node makes, the next one takes."""
    rng = np.random.default_rng(0)
    sites = ("layers.0.mixer", "layers.3")
    config = TopKConfig(k=4, expansion_factor=2).resolve(16)
    saes = {s: random_autoencoder(config, InputScaling(torch.zeros(16), 1.0), i) for i, s in enumerate(sites)}
    given = parameters(
        pairs={"max_edit_distance": 1, "num_sequence_pairs": 24},
        effects={"exact_top": 6, "ig_steps": 2, "checked_pairs": 4, "checked_top": 6, "tested_top": 6},
        acdc={
            "taus": [1e-6, 1e-3],
            "n_random_orders": 1,
            "max_pairs": 4,
            "start_top": 4,
            "verified_edges": 3,
        },
        curves={
            "baselines": ["neurons", "pca_rectified"],
            "max_pairs": 6,
            "ranked_top": 4,
            "mask_steps": 2,
            "das_rank": 2,
            "das_steps": 2,
        },
    )
    pairs, _ = read_out.pair(table, pd.DataFrame(columns=["source"]), given)
    experiment = set_up(handle, saes, random_probe(), pairs, given)
    atp = nodes.estimate(experiment)
    agreement, ig = nodes.check_estimators(experiment, pairs, atp, given)
    assert set(agreement["estimator"]) == {"atp", "ig", "exact, other direction"}
    assert len(ig.y_source) == 4
    exact = nodes.measure(experiment, atp, given)
    known = {"site": list(saes), "feature": 0, "stability": 0.0, "certified": "no"}
    stability = pd.DataFrame(known)
    selection, designed, comparison, predicted, positions = nodes.summarise(
        experiment, exact, pairs, stability, given
    )
    assert set(selection["certified"]) <= {"no", "unknown", "not a feature"}
    circuit, steps = circuits.find_circuit(experiment, pairs, exact, given)
    assert (steps["starts_from"] == "a screened set").all()
    edges, graph = circuits.connect(experiment, pairs, circuit, exact, given)
    assert graph["graph"]["positions"] == "nucleotides"
    learnt = nodes.learn_sets(experiment, pairs, exact, given)
    assert learnt["score"].between(0, 1).all()
    quality, parts = circuits.judge_circuit(experiment, pairs, circuit, learnt, given)
    assert quality["masks"].notna().all()
    assert quality["tau"].tolist() == [1e-6, 1e-3]
    shards = _Shards({site: rng.normal(size=(400, 16)).astype(np.float32) for site in sites})
    curves, summary, limits, blocks, words = nodes.compare(experiment, pairs, atp, learnt, shards, given)
    assert summary["dictionary"].tolist() == [*["sae"] * 5, "neurons", "pca_rectified", "das"]
    assert summary["ranking"].tolist() == ["exact", "atp", "difference", "masks", "random", *["exact"] * 3]
    assert len(words) == 7
    for made in (
        agreement,
        selection,
        designed,
        positions,
        circuit,
        steps,
        edges,
        quality,
        parts,
        curves,
        limits,
    ):
        assert {"estimator", "direction", "positions", "error_handling", "model", "dictionary_hash"} <= set(
            made
        )
        assert (made["model"] == handle.fingerprint[:12]).all()
    figures = nodes.draw(
        curves, summary, steps, selection, blocks, comparison, predicted, designed, positions, given
    )
    assert len(figures) == 8
    for figure in (*figures, *circuits.draw_circuit(circuit, edges, steps, quality, parts, given)):
        assert figure.axes
