"""Compiled gradients are those by hand. Traced and differentiated as for a GPU, run without its code generator."""

from __future__ import annotations

import pytest
import torch
from sae_toys import CONFIGS, D_IN, random_params, superposition

from helix_sae.sae.compiled import compiled_gradients
from helix_sae.sae.objective import StepContext
from helix_sae.sae.registry import architecture_of
from helix_sae.sae.scaling import estimate_scaling


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_equal_to_those_by_hand(name: str) -> None:
    config = CONFIGS[name].resolve(D_IN)
    objective = architecture_of(config).objective(config)
    params = random_params(config, bias=-0.5)
    x = superposition(203)
    z = estimate_scaling(x, "toy").apply(x)
    compiled = compiled_gradients(objective, backend="aot_eager")
    dead = torch.arange(config.d_sae) < 3
    for context in (StepContext(0.3), StepContext(0.7), StepContext(0.7, dead)):
        expected, found = (f(params, z, context) for f in (objective.gradients, compiled))
        assert set(found.gradients) == set(params)
        for parameter, gradient in expected.gradients.items():
            largest = max(float(gradient.abs().max()), 1e-3)
            torch.testing.assert_close(
                found.gradients[parameter], gradient, rtol=1e-5, atol=1e-5 * largest, msg=parameter
            )
        for measure in ("residual", "squared_error", "l1", "loss"):
            torch.testing.assert_close(
                getattr(found, measure), getattr(expected, measure), rtol=1e-5, atol=1e-5
            )
        assert torch.equal(found.fired, expected.fired)
