"""Hand-written gradients against autograd, for every architecture, sparse and dense, with and without dead features."""

from __future__ import annotations

import pytest
import torch
from sae_toys import CONFIGS, D_IN, random_params, superposition

from helix_sae.sae.objective import StepContext
from helix_sae.sae.registry import architecture_of
from helix_sae.sae.scaling import estimate_scaling
from helix_sae.sae.sparse import (
    ActiveCodes,
    by_feature,
    code_gradient,
    decode_active,
    to_dense,
    weight_gradient,
)
from helix_sae.sae.workers import Workers

NAMES = sorted(CONFIGS)
DENSE, SPARSE = 0.0, -1.7


def scaled(n: int = 203) -> torch.Tensor:
    x = superposition(n)
    return estimate_scaling(x, "toy").apply(x)


def close(left: torch.Tensor, right: torch.Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5 * max(float(right.abs().max()), 1e-3))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bias", [DENSE, SPARSE], ids=["dense", "sparse"])
@pytest.mark.parametrize("n_dead", [0, 3, 30])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_gradients_equal_autograd(name: str, bias: float, n_dead: int, n_threads: int) -> None:
    config = CONFIGS[name].resolve(D_IN)
    objective = architecture_of(config).objective(config)
    params = random_params(config, bias=bias)
    dead = None
    if n_dead:
        dead = torch.zeros(config.d_sae, dtype=torch.bool)
        dead[:n_dead] = True
    workers = Workers(n_threads)
    context = StepContext(0.7, dead, workers)
    z = scaled()
    fast, slow = objective.gradients(params, z, context), objective.autograd_gradients(params, z, context)
    workers.close()
    assert set(fast.gradients) == set(params)
    for parameter, gradient in slow.gradients.items():
        close(fast.gradients[parameter], gradient)
    close(fast.loss, slow.loss)
    close(fast.residual, slow.residual)
    close(fast.l1, slow.l1)
    close(fast.squared_error, slow.squared_error)
    assert torch.equal(fast.fired, slow.fired)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bias", [DENSE, SPARSE], ids=["dense", "sparse"])
def test_number_of_threads_changes_no_bit(name: str, bias: float) -> None:
    config = CONFIGS[name].resolve(D_IN)
    objective = architecture_of(config).objective(config)
    params, z = random_params(config, bias=bias), scaled(1500)
    results = []
    for n_threads in (1, 2, 3):
        workers = Workers(n_threads)
        results.append(objective.gradients(params, z, StepContext(workers=workers)).gradients)
        workers.close()
    for other in results[1:]:
        for parameter, gradient in results[0].items():
            assert torch.equal(gradient, other[parameter]), parameter


@pytest.mark.parametrize("name", NAMES)
def test_one_token_and_no_active_feature(name: str) -> None:
    config = CONFIGS[name].resolve(D_IN)
    objective = architecture_of(config).objective(config)
    params = random_params(config, bias=-100.0)
    result = objective.gradients(params, scaled(2)[:1], StepContext())
    assert int(result.fired.sum()) == 0
    assert all(bool(torch.isfinite(gradient).all()) for gradient in result.gradients.values())


def test_pair_operations_equal_dense_products() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(40, 15, generator=generator) < 0.2
    mask[3] = False
    mask[:, 4] = False
    dense = torch.randn(40, 15, generator=generator) * mask
    decoder, gradient = torch.randn(15, 6, generator=generator), torch.randn(40, 6, generator=generator)
    rows, features = mask.nonzero(as_tuple=True)
    offsets = torch.nn.functional.pad(mask.sum(1).cumsum(0), (1, 0))
    active = ActiveCodes(dense[rows, features], features, offsets)
    close(to_dense(active, 15), dense)
    close(decode_active(active, decoder), dense @ decoder)
    close(code_gradient(active, gradient, decoder), (gradient @ decoder.T)[mask])
    close(weight_gradient(by_feature(active, 15), active.codes, gradient), dense.T @ gradient)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bias", [DENSE, SPARSE], ids=["dense", "sparse"])
def test_bfloat16_products_give_nearly_the_same_gradient(name: str, bias: float) -> None:
    """Within bfloat16's own precision, in the direction of the whole gradient; everything that is kept stays float32."""
    config = CONFIGS[name].resolve(D_IN)
    objective = architecture_of(config).objective(config)
    params, z = random_params(config, bias=bias), scaled(600)
    dead = torch.arange(config.d_sae) < 3
    exact = objective.gradients(params, z, StepContext(0.7, dead))
    with torch.autocast("cpu", torch.bfloat16):
        rough = objective.gradients(params, z, StepContext(0.7, dead))
    assert all(value.dtype == torch.float32 for value in rough.gradients.values())
    flat = [torch.cat([g.flatten() for g in result.gradients.values()]) for result in (exact, rough)]
    assert float(torch.cosine_similarity(*flat, dim=0)) > 0.995
    assert not torch.equal(*flat)
    assert float(rough.loss) == pytest.approx(float(exact.loss), rel=0.03)
