"""The network on a GPU: in exact float32 what a CPU computes in float64, in rougher precisions nearly that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helix_twin import random_ids, tiny_model, tiny_network
from test_model import sequences

from helix_sae.models.extraction import extract_activations
from helix_sae.models.helix.architecture import build_network, released_architecture, save_network
from helix_sae.models.helix.model import HelixModel
from helix_sae.models.registry import handle_for, open_model, resolve_device

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

SITES = ("embeddings", "layers.0.mixer", "layers.3.self_attn", "layers.4")
ROUGH = {"bfloat16": 2e-2, "float32": 1e-5}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the released model's size."""
    folder = tmp_path_factory.mktemp("released")
    save_network(build_network(released_architecture(), seed=0), folder)
    return folder


@pytest.fixture(scope="module")
def exact(released: Path) -> torch.Tensor:
    return open_model(handle_for(released, device="cpu", dtype="float64")).hidden(random_ids(2, 300))


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double().cpu() - expected).norm() / expected.norm())


def test_auto_is_the_gpu():
    assert resolve_device("auto") == "cuda"


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", sorted(ROUGH))
def test_hidden_states_of_a_network_of_the_released_size(
    released: Path, exact: torch.Tensor, dtype: str, compiled: bool
):
    """A float32 of ten bits, which GPUs offer for products and convolutions, would be off by 1e-3."""
    model = open_model(handle_for(released, dtype=dtype, compiled=compiled))
    assert model.device.type == "cuda"
    found = model.hidden(random_ids(2, 300).cuda())
    assert relative_error(found, exact) < ROUGH[dtype]


def on_both() -> tuple[HelixModel, HelixModel]:
    here, there = tiny_model(), tiny_model()
    there.module.to("cuda")
    return here, there


@pytest.mark.parametrize("length", [1, 3, 127, 128, 129, 300])
def test_every_site_at_any_length(length: int):
    here, there = on_both()
    ids = random_ids(2, length)
    expected, found = here.capture(ids, here.site_names), there.capture(ids.cuda(), here.site_names)
    for site, activation in expected.items():
        torch.testing.assert_close(found[site].cpu(), activation, rtol=1e-4, atol=1e-5, msg=site)


@pytest.mark.parametrize("site", SITES)
def test_going_on_from_a_site_in_the_middle_of_a_sequence(site: str):
    here, there = on_both()
    ids, start = random_ids(3, 150), 70
    results = []
    for model in (here, there):
        cache = model.cache(ids.to(model.device))
        value = model.at_site(site, cache).clone()
        value[:, start:] += 0.3
        prefix = model.prefix_states(cache, start)
        results.append(model.resume_suffix(site, value[:, start:], prefix).detach().cpu())
        torch.testing.assert_close(
            results[-1], model.resume(site, value, cache)[:, start:].detach().cpu(), rtol=1e-4, atol=1e-5
        )
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)


def test_gradients():
    gradients = []
    for model in on_both():
        ids = random_ids(2, 140).to(model.device)
        value = model.cache(ids).residual[0].detach().requires_grad_()
        hidden = model.resume("embeddings", value, model.cache(ids))
        weight = torch.linspace(-1, 1, hidden.shape[-1], device=model.device)
        gradients.append(torch.autograd.grad((hidden * weight).sum(), value)[0].cpu())
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-4)


def test_activations_for_a_store_do_not_depend_on_device_or_batches(tmp_path: Path):
    save_network(tiny_network(), tmp_path)
    tokens = sequences([7, 30, 30, 11, 60, 29, 1])
    expected = extract_activations(tokens, handle=handle_for(tmp_path, device="cpu"), sites=SITES)
    for budget in (32, 8192):
        found = extract_activations(tokens, handle=handle_for(tmp_path), sites=SITES, token_budget=budget)
        for site in SITES:
            assert found[site].dtype == np.float32
            np.testing.assert_allclose(found[site], expected[site], rtol=1e-4, atol=1e-5)
