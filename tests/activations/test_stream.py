"""Activations computed on the way are the stored ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from activation_toys import SITES, save_version, toy_plan, toy_table
from kedro.io.core import Version

from helix_sae.activations import Activations, stream_activations
from helix_sae.datasets.activations import ActivationsDataset
from helix_sae.errors import ConfigurationError, DataError, StoreError, UnknownSiteError


@pytest.fixture(params=[None, 4])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Activations, Activations]:
    plan = toy_plan(toy_table(), tokens_per_sequence=request.param)
    save_version(str(tmp_path / "a"), "v", plan)
    return stream_activations(plan), ActivationsDataset(
        filepath=str(tmp_path / "a"), version=Version(None, None)
    ).load()


def test_every_way_of_reading_agrees_with_the_store(both: tuple[Activations, Activations]) -> None:
    stream, store = both
    assert stream.sequence_ids == store.sequence_ids
    assert len(stream) == len(store)
    assert "s0_3" in stream
    assert (stream.sites, stream.widths, stream.described) == (store.sites, store.widths, store.described)
    np.testing.assert_array_equal(stream.offsets, store.offsets)
    assert stream.n_tokens == store.n_tokens
    np.testing.assert_array_equal(stream.get("s0_7", SITES[1]), store.get("s0_7", SITES[1]))
    for a, b in zip(stream.rows("s0_7"), store.rows("s0_7"), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(stream.all_rows(), store.all_rows(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(stream.parts(SITES), store.parts(SITES), strict=True):
        assert a.sequence_ids == b.sequence_ids
        np.testing.assert_array_equal(a.offsets, b.offsets)
        np.testing.assert_array_equal(a.activations[SITES[0]], b.activations[SITES[0]])
    for one, other in zip(stream.sequences(SITES[1]), store.sequences(SITES[1]), strict=True):
        assert one.sequence_id == other.sequence_id
        np.testing.assert_array_equal(one.activations, store.get(one.sequence_id, SITES[1]))
        np.testing.assert_array_equal(one.activations, other.activations)
        np.testing.assert_array_equal(one.is_nucleotide, store.rows(one.sequence_id).is_nucleotide)


def whole(activations: Activations, site: str) -> np.ndarray:
    """The plain twin: all rows of a site, one sequence after another."""
    return np.concatenate([activations.get(name, site) for name in activations.sequence_ids])


def test_rows_anywhere_are_those_of_the_whole(both: tuple[Activations, Activations]) -> None:
    rows = np.random.default_rng(0).integers(0, both[0].n_tokens, 60)
    for activations in both:
        found = activations.rows_at(SITES, rows)
        for site in SITES:
            np.testing.assert_array_equal(found[site], whole(both[1], site)[rows])
        assert activations.rows_at(SITES, rows[:0])[SITES[0]].shape == (0, activations.widths[SITES[0]])
        with pytest.raises(DataError, match="were asked for; there are"):
            activations.rows_at(SITES, np.array([activations.n_tokens]))


def test_the_mean_is_that_of_the_rows(both: tuple[Activations, Activations]) -> None:
    chosen = both[0].sequence_ids[::3]
    for activations in both:
        mean, part = activations.mean(SITES), activations.mean(SITES, chosen)
        for site in SITES:
            np.testing.assert_allclose(mean[site], whole(both[1], site).astype(float).mean(0), rtol=1e-12)
            rows = np.concatenate([both[1].get(name, site) for name in chosen])
            np.testing.assert_allclose(part[site], rows.astype(float).mean(0), rtol=1e-12)
        with pytest.raises(DataError, match="No sequence was chosen"):
            activations.mean(SITES, [])


def test_batches_give_each_token_once(both: tuple[Activations, Activations]) -> None:
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
    stream = stream_activations(toy_plan(toy_table(4)), keep=False)
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
        call(stream_activations(toy_plan(toy_table(3))))
