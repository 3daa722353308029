"""The seeds of one site, compared."""

from __future__ import annotations

import numpy as np
import pytest
from sae_toys import superposition

from helix_sae.errors import AnalysisError
from helix_sae.sae import ArrayBatches, SparseAutoencoder, parse_sae_config, train_saes
from helix_sae.sae.certification import certify
from helix_sae.sae.stability import STABILITY_COLUMNS


@pytest.fixture(scope="module")
def seeds() -> dict[str, SparseAutoencoder]:
    x = superposition(5000, n_features=14, active=2)
    config = parse_sae_config(
        {"architecture": "relu", "l1_coefficient": 3e-3, "learning_rate": 1e-2, "expansion_factor": 2}
    )
    return {
        f"seed {s}": train_saes(
            ArrayBatches({"a": x}, 500, seed=s, epochs=15), {"r": config}, seed=s
        ).by_site()["a"]
        for s in range(5)
    }


def test_the_first_seed_gets_what_the_others_say(seeds: dict[str, SparseAutoencoder]) -> None:
    held = superposition(3000, seed=7, n_features=14, active=2)
    reference = next(iter(seeds.values()))
    found = certify(seeds, held, "layers.0")
    assert list(found.features.columns) == ["site", "feature", "alive", *STABILITY_COLUMNS]
    assert reference.stability is not None
    assert reference.stability.equals(found.features.drop(columns="site"))
    assert all(sae.stability is None for sae in list(seeds.values())[1:])
    living = found.features[found.features["alive"]]
    assert found.summary["n_certified"] == (living["certified"] == "yes").sum() >= 10
    assert found.summary["share_back"] == pytest.approx(living["stability"].mean())
    assert found.summary["share_back"] > 0.4 > found.summary["chance_back"]
    assert found.summary["pw_mcc"] > found.summary["chance_cosine"]
    assert found.subspaces is not None
    assert found.subspaces["site"] == "layers.0"


def test_one_seed_is_unknown(seeds: dict[str, SparseAutoencoder]) -> None:
    name, one = list(seeds.items())[1]
    found = certify({name: one}, superposition(500, seed=7, n_features=14), "layers.0")
    assert one.stability is None
    assert (found.features["certified"] == "unknown").all()
    assert found.subspaces is None
    assert np.isnan([found.summary[key] for key in ("share_back", "pw_mcc", "chance_back")]).all()


def test_a_seed_twice_is_an_error(seeds: dict[str, SparseAutoencoder]) -> None:
    one = seeds["seed 0"]
    with pytest.raises(AnalysisError, match=r"At layers\.0, again is the reference again"):
        certify({"seed 0": one, "again": one}, superposition(500, n_features=14), "layers.0")
