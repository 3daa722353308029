"""Features of several seeds grouped, pooled and trained on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse
import torch
from sae_toys import CONFIGS, random_params, superposition

from helix_sae.errors import AnalysisError
from helix_sae.sae import ArrayBatches, ReluConfig, evaluate_sae, parse_sae_config, train_saes
from helix_sae.sae.pooling import group_features, match_one_to_one, pool_features, train_on, unfold
from helix_sae.sae.registry import architecture_of
from helix_sae.sae.scaling import estimate_scaling
from helix_sae.sae.stability import SeedFeatures, held_out_features, similarities


def shuffled(base: SeedFeatures, seed: int, kept: int) -> SeedFeatures:
    """The first ``kept`` features of a base, and as many of its own, in another order."""
    rng = np.random.default_rng(seed)
    n, d_in = base.directions.shape
    directions = np.concatenate([base.directions[:kept], rng.normal(size=(n - kept, d_in))])
    own = rng.random((base.codes.shape[0], n - kept)) * (rng.random((base.codes.shape[0], n - kept)) < 0.2)
    codes = np.concatenate([base.codes.toarray()[:, :kept], own], axis=1)
    order = rng.permutation(n)
    return SeedFeatures(directions[order], scipy.sparse.csr_array(codes[:, order]))


def base_features(n: int = 6) -> SeedFeatures:
    rng = np.random.default_rng(0)
    codes = rng.random((300, n)) * (rng.random((300, n)) < 0.2)
    return SeedFeatures(rng.normal(size=(n, 10)), scipy.sparse.csr_array(codes))


def test_matching_is_the_best_of_all_permutations() -> None:
    rng = np.random.default_rng(3)
    base = base_features(5)
    near = SeedFeatures(base.directions + 0.45 * rng.normal(size=(5, 10)), base.codes[:, [1, 0, 2, 3, 4]])
    close = SeedFeatures(base.directions[[0, 0, 1, 2, 3]], base.codes[:, [0, 0, 1, 2, 3]])
    for other in (near, close):
        likeness = np.minimum(*similarities(base, other))
        allowed = np.where(likeness >= 0.7, likeness, 0)
        best = max(sum(allowed[i, j] for i, j in enumerate(p)) for p in itertools.permutations(range(5)))
        found = match_one_to_one(base, other)
        assert found.likeness.sum() == pytest.approx(best)
        assert (found.likeness >= 0.7).all()
        assert len(set(found.one)) == len(set(found.other)) == len(found.one)


def test_groups_hold_what_the_seeds_share_whatever_their_order() -> None:
    base = base_features()
    seeds = [shuffled(base, 1, 4), shuffled(base, 2, 4), shuffled(base, 3, 2)]
    groups = group_features(seeds)
    sizes = (groups >= 0).sum(axis=1)
    assert sorted(sizes)[-4:] == [2, 2, 3, 3]
    assert sizes.sum() == 18
    for column in groups.T:
        assert sorted(column[column >= 0]) == list(range(6))
    for row in groups[sizes > 1]:
        rows = [seeds[s].directions[f] for s, f in enumerate(row) if f >= 0]
        np.testing.assert_array_equal(rows, [rows[0]] * len(rows))
    again = group_features(seeds[::-1])[:, ::-1]
    assert {tuple(row) for row in again} == {tuple(row) for row in groups}


@pytest.mark.parametrize("name", list(CONFIGS))
def test_unfolding_undoes_the_export_of_every_architecture(name: str) -> None:
    x = superposition(3000)
    scaling = estimate_scaling(x, "a")
    # What undoes the shrinkage of L1 is part of the export alone: training on starts from the stretched codes.
    given = CONFIGS[name]
    plain = given.model_copy(update={"stretch": False}) if isinstance(given, ReluConfig) else given
    config = plain.resolve(x.shape[1])
    objective = architecture_of(config).objective(config)
    params = random_params(config, seed=1)
    sae = objective.export(params, scaling, scaling.apply(x))
    back = unfold(sae, scaling)
    for key, value in params.items():
        torch.testing.assert_close(back[key], value, atol=1e-5, rtol=1e-4)


def trained_seeds(x: torch.Tensor, n: int) -> tuple[list, list[SeedFeatures]]:
    config = parse_sae_config(
        {"architecture": "relu", "l1_coefficient": 3e-3, "learning_rate": 1e-2, "expansion_factor": 3}
    )
    saes = [
        train_saes(
            ArrayBatches({"a": x[:6000]}, 500, seed=seed, epochs=12), {"r": config}, seed=seed
        ).by_site()["a"]
        for seed in range(n)
    ]
    return saes, [held_out_features(sae, x[6000:]) for sae in saes]


def test_a_pooled_dictionary_is_trained_on_to_what_one_seed_explains() -> None:
    x = superposition(9000, n_features=16, active=2)
    saes, seeds = trained_seeds(x, 3)
    pooled = pool_features(saes, seeds)
    groups = group_features(seeds)
    assert pooled.d_sae == ((groups >= 0).sum(axis=1) == 3).sum()
    assert 12 <= pooled.d_sae < saes[0].d_sae
    torch.testing.assert_close(pooled.W_dec.norm(dim=1), torch.ones(pooled.d_sae))
    member = torch.from_numpy(groups[0])
    mean = torch.stack([sae.b_enc[member[s]] for s, sae in enumerate(saes)]).mean()
    torch.testing.assert_close(pooled.b_enc[0], mean)
    batches = ArrayBatches({"a": x[:6000]}, 500, seed=9, epochs=6)
    result = train_on({"a": pooled}, batches, {"a": estimate_scaling(x[:6000], "a")}, len(batches))["a"]
    assert result.config == pooled.config
    explained = [evaluate_sae(sae, [x[6000:]]).summary["explained_variance"] for sae in (*saes, result)]
    assert explained[-1] >= np.mean(explained[:-1]) - 0.01
    kept = held_out_features(result, x[6000:])
    assert match_one_to_one(held_out_features(pooled, x[6000:]), kept).one.size >= 0.9 * pooled.d_sae


def test_nothing_to_pool_is_an_error() -> None:
    seeds = [shuffled(base_features(), seed, 0) for seed in range(3)]
    sae = train_saes(ArrayBatches({"a": superposition(400)}, 200), {"t": CONFIGS["topk"]}).by_site()["a"]
    with pytest.raises(
        AnalysisError, match=r"At layers\.0, no feature comes back in three quarters of the 3 seeds"
    ):
        pool_features([sae] * 3, seeds, "layers.0")
