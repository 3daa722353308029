"""The node of the extraction pipeline: activations stored, or computed when they are read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helix_twin import tiny_network
from hypothesis import given
from hypothesis import strategies as st
from kedro.io import DataCatalog, MemoryDataset
from kedro.io.core import Version
from kedro.pipeline import Pipeline, node
from kedro.runner import SequentialRunner
from pydantic import ValidationError

from helix_sae.activations import Activations, save_activations
from helix_sae.activations.plan import bytes_a_token, fitting_sample, token_counts
from helix_sae.datasets.activations import ActivationsDataset
from helix_sae.errors import StoreError, UnknownSiteError
from helix_sae.models.helix.architecture import save_network
from helix_sae.models.registry import ModelHandle, handle_for
from helix_sae.pipelines.extraction import create_pipeline
from helix_sae.pipelines.extraction.nodes import extract
from helix_sae.pipelines.extraction.parameters import ExtractionParameters

Read = tuple[bool, list[str], dict[str, np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def handle(tmp_path_factory: pytest.TempPathFactory) -> ModelHandle:
    directory = tmp_path_factory.mktemp("checkpoint")
    save_network(tiny_network(), directory)
    return handle_for(directory, device="cpu")


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 60, 12)
    return pd.DataFrame(
        {
            "sequence_id": [f"s{i}" for i in range(12)],
            "sequence": ["".join(rng.choice(list("ACGU"), n)) for n in lengths],
            "cds_start": pd.array([3 if i % 2 else None for i in range(12)], dtype="Int64"),
            "cds_end": pd.array([None] * 12, dtype="Int64"),
        }
    )


def read(activations: Activations) -> Read:
    """What a node further down the pipeline does with activations."""
    sites = list(activations.sites)
    parts = list(activations.parts(sites))
    stored = {site: np.concatenate([part.activations[site] for part in parts]) for site in sites}
    drawn = np.concatenate([batch[sites[0]] for batch in activations.batches(sites, 16, seed=1)])
    return activations.source.is_stored, activations.sequence_ids, stored, drawn[np.lexsort(drawn.T)]


def run(root: Path, table: pd.DataFrame, handle: ModelHandle, parameters: dict) -> Read:
    """The pipeline and a node that reads what it made, as in one `kedro run`."""
    catalog = DataCatalog(
        {
            "mrna_table": MemoryDataset(table),
            "model": MemoryDataset(handle, copy_mode="assign"),
            "params:extraction": MemoryDataset(ExtractionParameters.model_validate(parameters)),
            "activations": ActivationsDataset(filepath=str(root), version=Version(None, "v")),
            "read": MemoryDataset(copy_mode="assign"),
        }
    )
    SequentialRunner().run(create_pipeline() + Pipeline([node(read, "activations", "read")]), catalog)
    return catalog["read"].load()


@pytest.mark.parametrize("limit", [None, 7])
def test_a_stream_gives_what_a_store_does_and_leaves_nothing_behind(
    tmp_path: Path, table: pd.DataFrame, handle: ModelHandle, limit: int | None
) -> None:
    options = {"shard_tokens": 100, "tokens_per_sequence": limit}
    is_stored, ids, stored, drawn = run(tmp_path / "stored", table, handle, {**options, "mode": "store"})
    assert is_stored
    assert list((tmp_path / "stored" / "shards").rglob("*.safetensors"))
    is_stored, streamed_ids, streamed, streamed_drawn = run(
        tmp_path / "streamed", table, handle, {**options, "mode": "stream"}
    )
    assert not is_stored
    assert not (tmp_path / "streamed").exists()
    assert streamed_ids == ids == table["sequence_id"].tolist()
    assert list(stored) == ["layers.0.mixer", "layers.2.mixer"]
    for site, values in stored.items():
        np.testing.assert_array_equal(streamed[site], values)
    # Rows are drawn from groups of other sequences, so they ran in other batches of the model.
    np.testing.assert_allclose(streamed_drawn, drawn, rtol=1e-5, atol=1e-5)


def test_passes_in_another_precision_share_no_shard(table: pd.DataFrame, handle: ModelHandle) -> None:
    plans = [
        extract(table, handle.model_copy(update={"dtype": dtype}), ExtractionParameters())
        for dtype in ("float32", "bfloat16")
    ]
    assert [made.described["precision"] for made in plans] == ["float32", "bfloat16"]
    assert not {s.key for s in plans[0].source.plan.shards} & {s.key for s in plans[1].source.plan.shards}


def test_sites_that_the_model_lacks_are_named_before_anything_is_computed(
    table: pd.DataFrame, handle: ModelHandle
) -> None:
    for mode in ("store", "stream"):
        with pytest.raises(UnknownSiteError, match=r"layers\.9"):
            extract(table, handle, ExtractionParameters(mode=mode, sites=["layers.9"]))


@pytest.mark.parametrize("wrong", [{"mode": "keep"}, {"dtype": "float8"}, {"sites": []}, {"shard_tokens": 0}])
def test_parameters_out_of_bounds(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        ExtractionParameters.model_validate(wrong)


def test_auto_stores_a_sample_where_everything_would_be_large(
    table: pd.DataFrame,
    handle: ModelHandle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    parameters = ExtractionParameters.model_validate({})
    assert parameters.mode == "auto"
    everything = extract(table, handle, parameters)
    assert everything.keep
    assert everything.are_whole
    assert "all of them are stored" in caplog.text
    counts = token_counts(table, handle.codon_markers)
    assert counts.tolist() == np.diff(everything.offsets).tolist()
    width = everything.widths[everything.sites[0]]
    token_bytes = bytes_a_token(len(everything.sites), width, "float32")
    monkeypatch.setattr(fitting_sample, "__defaults__", (100 * token_bytes,))
    sample = extract(table, handle, parameters)
    assert sample.keep
    kept = sample.described["tokens_per_sequence"]
    assert sample.n_tokens <= 100 < np.minimum(counts, kept + 1).sum()
    assert f"{kept} of each sequence ({sample.n_tokens} in all" in caplog.text
    assert "a second pass" in caplog.text
    assert extract(table, handle, ExtractionParameters.model_validate({"mode": "store"})).are_whole


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(
    tmp_path: Path, table: pd.DataFrame, handle: ModelHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    activations = extract(table, handle, ExtractionParameters.model_validate({"mode": "store"}))
    n_bytes = activations.n_tokens * bytes_a_token(
        len(activations.sites), activations.widths[activations.sites[0]], "float32"
    )

    def save(root: Path, free: int) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
        save_activations(activations, str(root))

    with pytest.raises(StoreError, match=r"nothing was written.*extraction.mode: auto"):
        save(tmp_path / "a", n_bytes - 1)
    assert not (tmp_path / "a").exists()
    save(tmp_path / "a", n_bytes)
    size = sum(path.stat().st_size for path in (tmp_path / "a").rglob("*.safetensors"))
    assert n_bytes <= size <= n_bytes + 20_000, "what was foreseen is what was written, but for headers"
    save(tmp_path / "a", 0)  # every shard is there


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(1, 5), st.integers(0, 400))
def test_the_sample_is_the_largest_that_fits(counts: list[int], token_bytes: int, largest: int) -> None:
    found = fitting_sample(np.array(counts), token_bytes, largest)
    sizes = {k: token_bytes * sum(min(n, k) for n in counts) for k in range(1, 51)}
    if sizes[50] <= largest:
        assert found is None
    else:
        assert found == max((k for k, size in sizes.items() if size <= largest), default=1)
