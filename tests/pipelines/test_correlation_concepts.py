"""Concept matching as a node: rows that belong together, overlapping instances, and a model that has learnt nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kedro.io.core import Version

from helix_sae.datasets.activations import ActivationsDataset
from helix_sae.models.helix.architecture import Architecture, build_network, save_network
from helix_sae.models.registry import ModelHandle, handle_for
from helix_sae.mrna.annotations import annotate_table
from helix_sae.mrna.simulator import simulate_transcripts
from helix_sae.mrna.tokens import tokenize
from helix_sae.pipelines.correlation.concepts import match_features
from helix_sae.pipelines.correlation.detectors import reader_baselines
from helix_sae.pipelines.correlation.nucleotides import choose_nucleotides, concepts_of, regions_of
from helix_sae.pipelines.correlation.parameters import CorrelationParameters
from helix_sae.pipelines.extraction import nodes as extraction
from helix_sae.pipelines.extraction.parameters import ExtractionParameters
from helix_sae.pipelines.sae_training import nodes as training
from helix_sae.pipelines.sae_training.parameters import SaeTrainingParameters

SEQUENCES = ("AUGAUGACUAGCCAUGGCUUAAUGACC", "GGCAUGCCAUGAAAUAGUUUUA", "AUGUAACCGGAUGCCCUGA")
BOUNDS = ((13, 25), (8, None), (None, None))

READ_FROM_LETTERS = {
    *("CpG", "homopolymer_6", "polyU_7", "polyA_8", "G4_like", "ARE_pentamer", "ARE_nonamer", "PUM", "PAS"),
    *("miR_8mer", "gc_high", "gc_low"),
}
"""Concepts that a window of nucleotides shows by itself, whatever the coding region."""


def small_table() -> pd.DataFrame:
    starts, ends = zip(*BOUNDS, strict=True)
    return pd.DataFrame(
        {
            "sequence_id": ["c", "a", "b"],
            "sequence": SEQUENCES,
            "cds_start": pd.array(starts, dtype="Int64"),
            "cds_end": pd.array(ends, dtype="Int64"),
            "split": ["discovery", "validation", "discovery"],
        }
    )


def small_codes() -> Any:
    """What is asked of the codes of three sequences, in another order than the table."""
    table = small_table().set_index("sequence_id")
    flags, offsets = [], [0]
    for name in ("a", "b", "c"):
        sequence, start, end = table.loc[name, ["sequence", "cds_start", "cds_end"]]
        tokens = tokenize(
            sequence, None if pd.isna(start) else int(start), None if pd.isna(end) else int(end), "cds"
        )
        flags.append(tokens.is_nucleotide)
        offsets.append(offsets[-1] + len(flags[-1]))
    return SimpleNamespace(
        sequence_id=np.array(["a", "b", "c"]), offsets=np.array(offsets), is_nucleotide=np.concatenate(flags)
    )


def test_rows_of_codes_and_annotations_belong_together() -> None:
    table, store = small_table(), small_codes()
    found = annotate_table(table)
    chosen = choose_nucleotides(store, found, limit=10**6)
    assert chosen.sequence_id == ["a", "b", "c"]
    text = "".join(table["sequence"])
    by_name = table.set_index("sequence_id")["sequence"]
    sequence = np.repeat(chosen.sequence_id, np.diff(chosen.offsets))
    for name, position, row in zip(sequence, chosen.nucleotide, chosen.annotation_rows, strict=True):
        assert by_name[name][position] == text[row]
    assert store.is_nucleotide[chosen.token_rows].all()
    first = np.repeat(store.offsets[:-1], np.diff(chosen.offsets))
    np.testing.assert_array_equal(first + chosen.token, chosen.token_rows)
    columns = np.arange(len(found.concepts))
    concepts = concepts_of(found, chosen, columns)
    for column, name in enumerate(found.concepts):
        assert (
            concepts.labels[:, [column]].toarray().ravel() == found.column(name)[chosen.annotation_rows]
        ).all()
    # The plain twin of the instances: each run of the annotations, as the chosen rows inside it.
    expected = []
    for concept, start, end in zip(found.run_concept, found.run_start, found.run_end, strict=True):
        rows = np.flatnonzero((chosen.annotation_rows >= start) & (chosen.annotation_rows < end))
        if len(rows):
            expected.append((int(concept), tuple(rows.tolist())))
    made = concepts.instances
    got = [
        (int(c), tuple(made.rows[a:b].tolist()))
        for c, a, b in zip(made.concept, made.starts[:-1], made.starts[1:], strict=True)
    ]
    assert sorted(got) == sorted(expected)
    regions = regions_of(found, chosen)
    for value, name in enumerate(("utr5", "cds", "utr3"), start=1):
        assert ((regions == value) == found.column(name)[chosen.annotation_rows]).all()


def test_two_uorfs_that_overlap_are_two_instances() -> None:
    table = pd.DataFrame(
        {
            "sequence_id": ["a", "b", "c"],
            "sequence": ["AUGCAUGCCUAGCUAAGAUGGCC"] * 3,
            "cds_start": pd.array([17] * 3, dtype="Int64"),
            "cds_end": pd.array([None] * 3, dtype="Int64"),
        }
    )
    found = annotate_table(table)
    n = len(found.instances("uORF_contained").start)
    tokens = tokenize(table["sequence"][0], 17, None, "cds")
    store = SimpleNamespace(
        sequence_id=np.array(["a", "b", "c"]),
        offsets=np.arange(4) * tokens.ids.size,
        is_nucleotide=np.tile(tokens.is_nucleotide, 3),
    )
    column = found.concepts.index("uORF_contained")
    made = concepts_of(found, choose_nucleotides(store, found, 10**6), np.array([column]))
    assert n == 6
    assert len(made.instances.concept) == n


def test_the_limit_takes_whole_sequences_the_same_each_time() -> None:
    found = annotate_table(small_table())
    few = choose_nucleotides(small_codes(), found, limit=1)
    assert len(few.sequence_id) == 1
    assert len(few.nucleotide) == len(small_table().set_index("sequence_id")["sequence"][few.sequence_id[0]])
    assert choose_nucleotides(small_codes(), found, limit=1).sequence_id == few.sequence_id


def test_markers_give_the_coding_phase_away() -> None:
    """Detectors of codon markers know the phase with certainty: a feature that reads them has learnt nothing."""
    table, store = small_table(), small_codes()
    found = annotate_table(table)
    chosen = choose_nucleotides(store, found, limit=10**6)
    kinds = {
        kind: next(iter(codes.values())) for kind, codes in reader_baselines(table, chosen, [1, 4], "cds")
    }
    assert list(kinds) == ["1-mers", "4-mers", "position", "markers"]
    fires = kinds["markers"].toarray() > 0
    labels = {name: found.column(name)[chosen.annotation_rows] for name in found.concepts}
    for position in (1, 2, 3):
        assert (fires[:, 1 + position] == labels[f"codon_pos_{position}"]).all()
    assert (fires[:, 1] == labels["cds"]).all()
    assert (fires[:, 6] == labels["utr3"]).all()
    words = kinds["4-mers"].toarray()
    assert words.shape[1] == 5**4, "k-mers of the tokens, markers among them"
    stop = labels["stop_UGA"].nonzero()[0]
    assert len(stop) == 3
    letters = "ACGUE"
    word = int(words[stop[-1]].argmax())
    assert "".join(letters[(word // 5**p) % 5] for p in (3, 2, 1, 0)) == "EUGA"
    unmarked = chosen._replace(n_markers=0 * chosen.n_markers)
    plain = dict(reader_baselines(table, unmarked, [1], "none"))
    assert list(plain) == ["1-mers", "position"]


def transcripts(n: int) -> pd.DataFrame:
    made = simulate_transcripts(n, np.random.default_rng(5), n_per_family=1)
    return made[["sequence", "cds_start", "cds_end"]].assign(
        sequence_id=[f"t{i:03d}" for i in range(n)],
        source="simulation",
        cluster=[f"c{i:03d}" for i in range(n)],
        split=np.where(np.arange(n) % 3, "discovery", "validation"),
    )


def untrained_handle(folder: Path) -> ModelHandle:
    save_network(build_network(Architecture(), seed=11), folder)  # pyright: ignore[reportCallIssue]
    return handle_for(folder, device="cpu")


@pytest.mark.slow
def test_a_model_with_random_weights_passes_for_letters_alone(tmp_path: Path) -> None:
    """The whole road, on a model that has learnt nothing: what passes can be read off a window of nucleotides."""
    table, handle = transcripts(60), untrained_handle(tmp_path / "model")
    settings = ExtractionParameters(sites=["layers.0.mixer", "layers.6.mixer"])  # pyright: ignore[reportCallIssue]
    store = ActivationsDataset(
        filepath=str(tmp_path / "activations"), version=Version(None, "2026-01-01T00.00.00.000Z")
    )
    store.save(extraction.extract(table, handle, settings))
    activations: Any = store.load()
    sae = SaeTrainingParameters.model_validate(
        {
            "saes": {"topk": {"architecture": "topk", "k": 16, "expansion_factor": 4}},
            "chosen": "topk",
            "epochs": 2,
            "batch_size": 1024,
        }
    )
    saes, *_ = training.train(activations, table, {}, sae)
    codes = training.encode(activations, saes, table, handle, settings).in_memory()
    given = CorrelationParameters.model_validate(
        {"concepts": {"n_shifts": 40, "random_model": True, "max_nucleotides": 100_000}, "seed": 3}
    )
    matches, baselines, _ = match_features(
        codes, activations, annotate_table(table), table, handle, given, sae, {}, settings
    )
    assert set(baselines["kind"]) == {
        *("sae", "neurons", "pca", "random_model", "1-mers", "3-mers", "4-mers", "position", "markers"),
    }
    for kind in ("sae", "neurons", "pca", "random_model"):
        passing = set(baselines.loc[(baselines["kind"] == kind) & baselines["passes"], "concept"])
        assert passing <= READ_FROM_LETTERS, kind
    markers = baselines[baselines["kind"] == "markers"].set_index("concept")["f1"]
    assert markers[["cds", "utr3", "codon_pos_1", "codon_pos_2", "codon_pos_3"]].min() == 1
    assert not matches.duplicated(["site", "feature", "concept"]).any()
