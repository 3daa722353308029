"""Maps: like features lie together, sequences lie on the principal components of what the features say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from helix_sae.reporting import maps
from helix_sae.reporting.maps import SIZE, feature_places, sequence_map, shades

SITES = ("layers.0.mixer", "layers.2.mixer")


def groups(n: int = 30) -> np.ndarray:
    """Directions around three centres, in turn."""
    rng = np.random.default_rng(0)
    return np.eye(3, 12)[np.arange(n) % 3] + 0.05 * rng.normal(size=(n, 12))


@pytest.mark.parametrize("most", [4_000, 10])
def test_like_directions_lie_together(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(maps, "_MOST_BY_NEIGHBOURS", most)
    order = [(SITES[0], i) for i in range(30)]
    places = feature_places({SITES[0]: groups()}, order)
    assert places.min() == 0
    assert places.max() == SIZE
    far = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e9 * np.eye(30)
    assert (far.argmin(axis=1) % 3 == np.arange(30) % 3).all()
    assert np.array_equal(places, feature_places({SITES[0]: groups()}, order))


def test_sites_have_maps_of_their_own_and_may_have_few_features() -> None:
    decoders = {SITES[0]: groups(), SITES[1]: groups(2)}
    both = feature_places(decoders, [*((SITES[0], i) for i in range(5)), (SITES[1], 0), (SITES[1], 1)])
    alone = feature_places(decoders, [(SITES[0], i) for i in range(5)])
    assert np.array_equal(both[:5], alone)
    assert len(feature_places(decoders, [])) == 0


def codes() -> tuple[np.ndarray, pd.DataFrame]:
    rng = np.random.default_rng(1)
    dense = rng.gamma(1.0, size=(40, 6)) * (rng.random((40, 6)) < 0.7)
    dense[:, 0] += 50 * (np.arange(40) % 2)
    dense[:, 5] = 0
    return dense, pd.DataFrame({"sequence_id": [f"s{i}" for i in range(40)], "source": "a"})


def test_sequences_lie_on_principal_components_of_relative_codes() -> None:
    dense, table = codes()
    found = sequence_map({SITES[0]: scipy.sparse.csr_matrix(dense)}, table, [(SITES[0], i) for i in range(6)])
    assert found is not None
    relative = dense / np.maximum(dense.max(axis=0), 1e-12)
    centred = relative - relative.mean(axis=0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    for axis in range(2):
        given, wanted = found.places[:, axis], left[:, axis] * size[axis]
        assert abs(np.corrcoef(given, wanted)[0, 1]) > 0.999
    assert found.share == pytest.approx((size[:2] ** 2).sum() / (size**2).sum(), rel=1e-6)
    for i, names in enumerate(found.strongest):
        order = [j for j in np.argsort(-relative[i], kind="stable") if relative[i, j] > 0][:5]
        assert names == [f"L0.mixer.{j}" for j in order]


def test_a_sample_of_many_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    dense, table = codes()
    monkeypatch.setattr(maps, "MOST_SEQUENCES", 10)
    found = sequence_map({SITES[0]: scipy.sparse.csr_array(dense)}, table, [(SITES[0], i) for i in range(6)])
    assert found is not None
    assert len(found.table) == len(found.places) == found.pooled[SITES[0]].shape[0] == 10
    rows = [int(name[1:]) for name in found.table["sequence_id"]]
    assert np.allclose(found.pooled[SITES[0]].toarray(), dense[rows])


def test_no_map_of_next_to_nothing() -> None:
    dense, table = codes()
    matrix = scipy.sparse.csr_array(dense)
    assert sequence_map({SITES[0]: matrix}, table, []) is None
    assert sequence_map({SITES[0]: matrix[:2]}, table.head(2), [(SITES[0], i) for i in range(6)]) is None


def test_shades_of_a_feature() -> None:
    column = scipy.sparse.csc_array(np.array([[0.0], [10.0], [0.1], [5.0]]))
    assert shades(column, 0) == "0915"
    assert shades(scipy.sparse.csc_array((3, 1)), 0) == ""
