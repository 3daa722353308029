"""The definition is the loops of its twin, and what runs is the definition: part by part, with and without a gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helix_twin import random_ids, tiny_network, twin_hidden
from torch import Tensor, nn

from helix_sae.models.helix import definition

Part = Callable[[nn.Module, Tensor], Tensor]

PARTS: dict[str, tuple[str, Part]] = {
    "layers.0.mixer": ("mixer", lambda part, x: part(x)),
    "layers.1.feed_forward": ("feed_forward", lambda part, x: part(x)[0]),
    "layers.3.self_attn": ("attention", lambda part, x: part(hidden_states=x, attention_mask=None)[0]),
    "layers.0": ("block", lambda part, x: part(x)[0]),
    "layers.3": ("block", lambda part, x: part(x, attention_mask=None, use_cache=False)[0]),
}


@pytest.mark.parametrize("n_groups", [1, 2])
def test_the_definition_is_the_loops(n_groups: int):
    network, ids = tiny_network(n_groups=n_groups).double(), random_ids(2, 21)
    torch.testing.assert_close(
        definition.last_hidden(network, ids), twin_hidden(network, ids), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("time", [1, 3, 40, 300])
@pytest.mark.parametrize("path", PARTS)
def test_every_part_that_runs_is_the_definition(path: str, time: int):
    name, call = PARTS[path]
    x = torch.randn(2, time, 16, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(2, time, 16, generator=torch.Generator().manual_seed(1))
    part: Any = tiny_network(n_groups=2).get_submodule(path)
    exact = copy.deepcopy(part).double()
    leaf = x.double().requires_grad_()
    expected = getattr(definition, name)(exact, leaf)
    (gradient,) = torch.autograd.grad((expected * weights.double()).sum(), leaf)
    with torch.no_grad():
        torch.testing.assert_close(call(part, x).double(), expected.detach(), rtol=1e-4, atol=1e-5)
    followed = x.clone().requires_grad_()
    found = call(part, followed)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    (found_gradient,) = torch.autograd.grad((found * weights).sum(), followed)
    torch.testing.assert_close(found_gradient.double(), gradient, rtol=1e-3, atol=1e-4)


def test_norm_and_convolution_of_a_precision():
    norm: Any = tiny_network("M").layers[0].norm.bfloat16()
    assert definition.norm(torch.randn(2, 16), norm).dtype == torch.bfloat16
