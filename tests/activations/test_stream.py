"""Activations computed on the way are the stored ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from activation_toys import SITES, save_version, toy_plan, toy_table
from kedro.io.core import Version

from helix_sae.activations.store import ActivationStore
from helix_sae.activations.stream import ActivationStream
from helix_sae.datasets.activations import ActivationsDataset
from helix_sae.errors import ConfigurationError, DataError, StoreError, UnknownSiteError


@pytest.fixture(params=[None, 4])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ActivationStream, ActivationStore]:
    plan = toy_plan(toy_table(), tokens_per_sequence=request.param)
    save_version(str(tmp_path / "a"), "v", plan)
    return ActivationStream(plan), ActivationsDataset(
        filepath=str(tmp_path / "a"), version=Version(None, None)
    ).load()


def test_every_way_of_reading_agrees_with_the_store(both: tuple[ActivationStream, ActivationStore]) -> None:
    stream, store = both
    assert stream.sequence_ids == store.sequence_ids
    assert len(stream) == len(store)
    assert "s0_3" in stream
    assert (stream.sites, stream.widths, stream.fingerprint) == (store.sites, store.widths, store.fingerprint)
    np.testing.assert_array_equal(stream.offsets, store.offsets)
    assert stream.n_tokens == store.n_tokens
    np.testing.assert_array_equal(stream.get("s0_7", SITES[1]), store.get("s0_7", SITES[1]))
    for a, b in zip(stream.rows("s0_7"), store.rows("s0_7"), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(stream.all_rows(), store.all_rows(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(stream.iter_shards(SITES), store.iter_shards(SITES), strict=True):
        assert a.sequence_ids == b.sequence_ids
        np.testing.assert_array_equal(a.offsets, b.offsets)
        np.testing.assert_array_equal(a.activations[SITES[0]], b.activations[SITES[0]])


def test_batches_give_each_token_once(both: tuple[ActivationStream, ActivationStore]) -> None:
    stream, store = both
    chosen = stream.sequence_ids[::2]
    batches = stream.batches(SITES, 8, seed=2, epochs=2, sequence_ids=chosen, buffer_rows=50)
    taken = list(batches)
    assert len(taken) == len(batches)
    rows = np.concatenate([np.concatenate([b[site] for site in SITES], axis=1) for b in taken])
    exact = np.concatenate([np.concatenate([store.get(n, site) for site in SITES], axis=1) for n in chosen])
    for epoch in (rows[: len(exact)], rows[len(exact) :]):
        np.testing.assert_array_equal(epoch[np.lexsort(epoch.T)], exact[np.lexsort(exact.T)])
    again = np.concatenate([np.concatenate([b[site] for site in SITES], axis=1) for b in batches])
    np.testing.assert_array_equal(rows, again)


def test_the_dataset_hands_a_stream_on_and_stores_nothing(tmp_path: Path) -> None:
    dataset = ActivationsDataset(filepath=str(tmp_path / "a"), version=Version(None, "v2"))
    stream = ActivationStream(toy_plan(toy_table(4)))
    dataset.save(stream)
    assert dataset.load() is stream
    assert dataset.resolve_load_version() == "v2"
    assert list(tmp_path.iterdir()) == []
    dataset.release()
    assert not dataset.exists()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda s: s.get("s0_1", "x"), UnknownSiteError),
        (lambda s: s.get("absent", SITES[0]), DataError),
        (lambda s: s.batches(SITES, 0, 0), ConfigurationError),
        (lambda s: s.batches(SITES, 1, 0, sequence_ids=[]), DataError),
        (lambda s: s.check_model("other"), StoreError),
    ],
)
def test_requests_that_cannot_be_met(call: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        call(ActivationStream(toy_plan(toy_table(3))))
