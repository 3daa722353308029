"""What can be known of a run before the model is opened is said at once, all of it."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kedro.config import OmegaConfigLoader
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node
from kedro.runner import SequentialRunner

from helix_sae.errors import ConfigurationError
from helix_sae.mrna.records import RawRecord, RawRecords
from helix_sae.pipelines import causal_acdc, correlation, extraction, ingestion, sae_training
from helix_sae.pipelines.causal_acdc.parameters import NO_TARGET
from helix_sae.pipelines.early import EarlyChecks, check_run, sites_of
from helix_sae.pipelines.ingestion.nodes import tabulate
from helix_sae.pipelines.ingestion.parameters import IngestionParameters

EVERYTHING = sum(
    (part.create_pipeline() for part in (ingestion, extraction, sae_training, correlation, causal_acdc)),
    Pipeline([]),
)


def raw(n: int = 60, **columns: Any) -> RawRecords:
    """Sequences of 30 nucleotides and no relatives, with what the columns say of each number."""
    letters = np.random.default_rng(0).choice(list("ACGU"), (n, 30))
    rows = [
        {"seq": "".join(word), **{name: of(i) for name, of in columns.items()}}
        for i, word in enumerate(letters)
    ]
    return RawRecords([RawRecord("own.csv", f"line {i + 2}", row) for i, row in enumerate(rows)], [])


def table(records: RawRecords, **asked: Any) -> pd.DataFrame:
    parameters = IngestionParameters.model_validate(
        {"split": {"discovery": 0.5, "validation": 0.5}, "cluster_by": "none"}
    )
    return tabulate(records, parameters, **asked)[0]


def catalog(project: Path, further: RawRecords | None = None, **changed: dict[str, Any]) -> DataCatalog:
    """The parameters of conf/base with changes, and helix_mini by its handle."""
    loader = OmegaConfigLoader(str(project / "conf"), base_env="base", default_run_env="local")
    found: dict[str, Any] = dict(loader["parameters"])
    entries = {
        f"params:{name}": MemoryDataset(_merged(value, changed.get(name, {})))
        for name, value in found.items()
    }
    source = str(project / "data" / "06_models" / "helix_mini")
    entries["model"] = MemoryDataset(SimpleNamespace(kind="helix_mrna", source=source), copy_mode="assign")
    entries["probe_records"] = MemoryDataset(further or RawRecords([], []), copy_mode="assign")
    return DataCatalog(entries)


def _merged(value: Any, changes: dict[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    return {
        **value,
        **{
            k: _merged(value.get(k), v) if isinstance(v, dict) and value.get(k) else v
            for k, v in changes.items()
        },
    }


def problems(project: Path, records: RawRecords, pipeline: Pipeline = EVERYTHING, **changed: Any) -> str:
    """The list of problems; empty if there are none."""
    further = changed.pop("further", None)
    causal, asked = changed.get("causal_acdc", {}), changed.get("correlation", {})
    made = table(records, target=causal.get("target"), properties=asked.get("properties"))
    try:
        check_run(made, pipeline, catalog(project, further, **changed))
    except ConfigurationError as error:
        return str(error)
    return ""


def te(number: int) -> float:
    return float(number % 7)


def test_a_run_that_can_be_done_has_no_problems(project_path: Path) -> None:
    assert problems(project_path, raw(te=te), causal_acdc={"target": "te"}) == ""
    assert problems(project_path, raw(mrl=te)) == "", (
        "the default target, under the name that the assay gives it"
    )


def test_all_problems_are_in_one_list(project_path: Path) -> None:
    said = problems(
        project_path,
        raw(te_hek293=te),
        causal_acdc={
            "target": "te_hek92",
            "target_blocks": [0, 99],
            "pairs": {"source": "named", "min_reads": 5, "parent": "wild"},
        },
        correlation={"properties": ["te_hek293", "te_hek"], "confounders": ["structural_gc"]},
        extraction={"sites": ["layers.0.mixer", "layers.1.mixer"]},
        sae_training={"downstream": {"targets": ["functional_x"]}},
    )
    assert said.startswith("8 settings cannot be met")
    for words in (
        "extraction.sites: the model has no layers.1.mixer; it has embeddings, layers.0, layers.0.mixer",
        "causal_acdc.target_blocks: block 99 will have no autoencoder; those trained are at 0, 1",
        "sae_training.downstream.targets: no column 'x' was read",
        "correlation.properties: no column 'te_hek' was read. Did you mean 'te_hek293'?",
        "correlation.confounders: no column 'structural_gc' was read",
        "causal_acdc.target: no column 'te_hek92' was read. Did you mean 'te_hek293'?",
        "pairs.min_reads: the table has no column `reads`",
        "pairs.parent: the table has no column 'wild'",
    ):
        assert words in said


def test_only_what_the_run_is_going_to_read_is_checked(project_path: Path) -> None:
    mistaken = {"target_blocks": [99], "pairs": {"source": "natural", "min_reads": 5}}
    pipeline = ingestion.create_pipeline() + correlation.create_pipeline()
    assert problems(project_path, raw(te=te), pipeline, causal_acdc=mistaken) == ""
    assert "min_reads" in problems(
        project_path, raw(te=te), causal_acdc.create_pipeline(), causal_acdc=mistaken
    )


def test_categories_need_the_class_that_is_explained(project_path: Path) -> None:
    records = raw(site=lambda i: "nucleus" if i % 2 else "cytosol")
    said = problems(project_path, records, causal_acdc={"target": "site"})
    assert "site is a category (cytosol, nucleus)" in said
    assert "causal_acdc.probe.positive_class=nucleus, with causal_acdc.probe.kind=logistic" in said
    probe = {"kind": "logistic", "positive_class": "nucleus"}
    assert problems(project_path, records, causal_acdc={"target": "site", "probe": probe}) == ""
    probe["positive_class"] = "membrane"
    assert "'membrane' is no class of site" in problems(
        project_path, records, causal_acdc={"target": "site", "probe": probe}
    )
    said = problems(project_path, raw(te=te), causal_acdc={"target": "te", "probe": {"kind": "logistic"}})
    assert "logistic is for two classes" in said


@pytest.mark.parametrize(
    ("columns", "causal", "words"),
    [
        ({}, {}, "the prediction of mrl and its causes: no sequence has it (no property was measured)"),
        ({"functional_te": te}, {"target": NO_TARGET}, "set causal_acdc.target to one of te"),
        ({"functional_te": te}, {}, "no sequence has it (set causal_acdc.target to one of te)"),
        (
            {"te": lambda i: 3.0},
            {"target": "te"},
            "the prediction of te and its causes: it does not vary (3.0 everywhere)",
        ),
        ({"te": lambda i: i if i < 3 else None}, {"target": "te"}, "families are labelled, and"),
        (
            {"te": te},
            {"target": "te", "pairs": {"source": "edited"}},
            "edited pairs: no start codon is known",
        ),
        (
            {"te": te},
            {"target": "te", "pairs": {"max_length": 20}},
            "no sequence is as short as 20 nt; the shortest has 30 (causal_acdc.pairs.max_length",
        ),
    ],
)
def test_what_the_data_do_not_allow_is_said_and_the_run_goes_on(
    columns: dict[str, Any],
    causal: dict[str, Any],
    words: str,
    project_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert problems(project_path, raw(**columns), causal_acdc=causal) == ""
    assert words in caplog.text


def test_few_labels_are_said(project_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert (
            problems(
                project_path, raw(200, te=lambda i: i if i % 10 == 0 else None), causal_acdc={"target": "te"}
            )
            == ""
        )
    assert "te is known of 20 of 200 sequences (10 %)" in caplog.text


def test_further_sequences_are_read_at_once(project_path: Path) -> None:
    def said(*rows: dict[str, object]) -> str:
        further = RawRecords([RawRecord("more.csv", f"line {i + 2}", row) for i, row in enumerate(rows)], [])
        return problems(project_path, raw(te=te), causal_acdc={"target": "te"}, further=further)

    assert said({"seq": "ACGUACGUAC", "te": 1.5}) == ""
    assert "probe_sequences: 1 of 2 records cannot be used" in said(
        {"sequence": "ACGUACGUAC", "te": 1.5}, {"sequence": "ACX", "te": 1.5}
    )
    assert "probe_sequences" in said({"sequence": "ACGUACGUAC", "other": 1.5})


def test_sites_are_those_of_the_configuration(project_path: Path) -> None:
    found = sites_of(catalog(project_path))
    assert found is not None
    assert [site for site in found if site.endswith(".mixer")] == [f"layers.{k}.mixer" for k in (0, 2, 4, 6)]
    assert "layers.7.self_attn" in found


def test_a_run_stops_between_its_table_and_what_reads_it(project_path: Path) -> None:
    """Whether the run makes the table, or finds it."""
    opened: list[str] = []
    mistaken = catalog(project_path, causal_acdc={"pairs": {"source": "natural", "min_reads": 5}})
    made = table(raw(mrl=te))
    make = node(lambda: made, None, "mrna_table", name="make")
    use = node(lambda t, p: opened.append("model"), ["mrna_table", "params:causal_acdc"], None, name="use")
    for pipeline in (Pipeline([make, use]), Pipeline([use])):
        mistaken["mrna_table"] = MemoryDataset(made)
        with pytest.raises(ConfigurationError, match="the table has no column `reads`"):
            _run(pipeline, mistaken)
    assert not opened


def _run(pipeline: Pipeline, given: DataCatalog) -> None:
    hooks = _create_hook_manager()
    hooks.register(EarlyChecks())
    hooks.hook.before_pipeline_run(run_params={}, pipeline=pipeline, catalog=given)
    SequentialRunner().run(pipeline, given, hooks, run_id="x")
