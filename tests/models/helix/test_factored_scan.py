"""The scan with split decays, and its gradient by hand, against the recurrence."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_inputs import HEADS, Inputs, initial_state, make_inputs
from torch import Tensor

from helix_sae.models.helix.definition import recurrence
from helix_sae.models.helix.fast import choice, factored_scan
from helix_sae.models.helix.fast.choice import scan_outputs
from helix_sae.models.helix.fast.factored_scan import FactoredScan, factored_chunk, factored_outputs

NAMES = ("y", "x", "dt", "B", "C")


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("chunk", [16, 64, 256])
@pytest.mark.parametrize("time", [1, 31, 64, 65, 200, 257])
@pytest.mark.parametrize("start", ["empty", "own", "shared"])
def test_outputs_and_gradients_equal_those_of_the_recurrence(time: int, chunk: int, groups: int, start: str):
    inputs = make_inputs(time, groups)._replace(A=-torch.tensor([0.01, 0.05, 0.1, 0.15], dtype=torch.float64))
    shared = initial_state(1).expand(2, -1, -1, -1)
    state = {"empty": None, "own": initial_state(), "shared": shared}[start]
    expected = differentiated(lambda *a: recurrence(*a, initial_state=state).y, inputs)
    found = differentiated(lambda *a: FactoredScan.apply(*a, chunk, state), inputs)
    narrow = None if state is None else state.float()
    single = differentiated(lambda *a: FactoredScan.apply(*a, chunk, narrow), inputs.to(torch.float32))
    for name, f, s, e in zip(NAMES, found, single, expected, strict=True):
        assert (f - e).abs().max() <= 1e-9 * e.abs().max().clamp(min=1), name
        assert (s.double() - e).abs().max() <= 1e-5 * e.abs().max().clamp(min=1), name
    undifferentiated = factored_outputs(*inputs.to(torch.float32), chunk, narrow)
    torch.testing.assert_close(undifferentiated, single[0].detach(), rtol=1e-5, atol=1e-5)


@given(
    time=st.integers(1, 40),
    chunk=st.integers(1, 16),
    groups=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 2**16),
    starts_empty=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_length_and_chunk(time: int, chunk: int, groups: int, seed: int, starts_empty: bool):
    inputs, state = make_inputs(time, groups, seed=seed), None if starts_empty else initial_state()
    expected = differentiated(lambda *a: recurrence(*a, initial_state=state).y, inputs)
    found = differentiated(lambda *a: FactoredScan.apply(*a, chunk, state), inputs)
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-8, atol=1e-8)


def test_the_gradient_of_a_long_sequence():
    """Errors of the balance of what tokens read and give must not add up over chunks."""
    inputs = make_inputs(3000, batch=1)._replace(
        A=-torch.tensor([0.001, 0.01, 0.1, 0.2], dtype=torch.float64)
    )
    expected = differentiated(lambda *a: recurrence(*a).y, inputs)
    found = differentiated(scan_outputs, inputs.to(torch.float32))
    assert "FactoredScan" in type(found[0].grad_fn).__name__
    for name, f, e in zip(NAMES, found, expected, strict=True):
        assert (f.double() - e).abs().max() < 3e-6 * e.abs().max(), name


@pytest.mark.parametrize("places", [[1], [63], [30, 31, 32], range(1, 64), range(50, 64)])
def test_gradients_near_their_largest_exponent_are_exact_enough(places: list[int]):
    inputs = steep_inputs(places, factored_scan.LARGEST_EXPONENT_OF_GRADIENT)
    expected = differentiated(lambda *a: recurrence(*a).y, inputs, scale=1e-6)
    found = differentiated(scan_outputs, inputs.to(torch.float32), scale=1e-6)
    assert "FactoredScan" in type(found[0].grad_fn).__name__
    for name, f, e in zip(NAMES, found, expected, strict=True):
        assert (f.double() - e).abs().max() < 1e-5 * e.abs().max(), name


@pytest.mark.parametrize("places", [[1], [63], [30, 31, 32], range(1, 64), range(1, 20), range(50, 64)])
def test_decays_near_the_largest_exponent_are_exact_enough(places: list[int]):
    """One factor is as large, and the other as small, as they may be."""
    inputs = steep_inputs(places, factored_scan.LARGEST_EXPONENT)
    narrow = inputs.to(torch.float32)
    assert split_chunk(narrow) == 64
    for state in (None, initial_state()):
        expected = recurrence(*inputs, initial_state=state).y
        found = scan_outputs(*narrow, initial_state=None if state is None else state.float())
        error = (found.double() - expected).abs()
        assert (error / expected.abs().clamp(min=1)).max() < 1e-5


@pytest.mark.parametrize("time", [64, 150])
def test_no_bit_depends_on_what_comes_after(time: int):
    inputs = make_inputs(time).to(torch.float32)
    inputs = inputs._replace(A=inputs.A * 0.1)
    y = scan_outputs(*inputs)
    for at in (1, 5, 40, 63, time - 1):
        changed = Inputs(*(t.clone() for t in inputs))
        for tensor in (changed.x, changed.dt, changed.B, changed.C):
            tensor[:, at:] *= 1.1
        assert split_chunk(changed) == split_chunk(inputs) == 256
        found = scan_outputs(*changed)
        assert torch.equal(found[:, :at], y[:, :at])
        assert not torch.equal(found[:, at], y[:, at])


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("largest", [-1.0, 8.0, 60.0])
@pytest.mark.parametrize("time", [1, 31, 64, 65, 200, 257])
def test_decays_split_or_not_give_the_same(
    time: int, largest: float, groups: int, monkeypatch: pytest.MonkeyPatch
):
    bounded = partial(factored_chunk, largest=largest)
    monkeypatch.setattr(choice, "factored_chunk", bounded)
    inputs = make_inputs(time, groups)._replace(A=-torch.tensor([0.05, 0.1, 0.2, 0.5], dtype=torch.float64))
    narrow = inputs.to(torch.float32)
    chunk = bounded(narrow.dt, narrow.A)
    assert (chunk is None) == (largest < 0)
    if time >= 200:
        assert chunk in {-1.0: (None,), 8.0: (16, 32), 60.0: (256,)}[largest]
    for state in (None, initial_state()):
        expected = recurrence(*inputs, initial_state=state).y
        found = scan_outputs(*narrow, initial_state=None if state is None else state.float())
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(scan_outputs(*inputs, initial_state=state), expected, rtol=1e-9, atol=1e-9)


def test_chunks_are_as_long_as_their_decay_allows():
    inputs = make_inputs(time=512).to(torch.float32)
    for decay, expected in ((0.05, 256), (0.3, 128), (0.7, 64), (1.5, 32), (3.5, 16), (5.0, None)):
        steady = inputs._replace(A=-torch.ones(HEADS), dt=torch.full_like(inputs.dt, decay))
        assert split_chunk(steady) == expected
        assert factored_chunk(steady.dt, steady.A, 100) == (64 if decay < 0.5 else expected)
    assert split_chunk(inputs._replace(A=inputs.A * torch.nan)) is None
    weak = make_inputs(time=513)
    assert split_chunk(weak._replace(A=weak.A * 1e-3)) == 128


def test_which_scan_is_taken(monkeypatch: pytest.MonkeyPatch):
    inputs, taken = make_inputs(time=100).to(torch.float32), []
    inputs = inputs._replace(A=inputs.A * 0.1)
    for name in ("factored_outputs", "chunked_outputs"):
        original = getattr(choice, name)
        monkeypatch.setattr(choice, name, lambda *a, f=original, n=name: taken.append(n) or f(*a))

    def scans(inputs: Inputs, state: Tensor | None = None) -> str:
        taken.clear()
        node = scan_outputs(*inputs, initial_state=state).grad_fn
        return "FactoredScan" if not taken and "FactoredScan" in type(node).__name__ else taken.pop()

    assert scans(inputs) == "factored_outputs"
    assert scans(inputs._replace(A=inputs.A * 1e4)) == "chunked_outputs"
    for name in Inputs._fields:  # by hand for what a frozen model computes, otherwise by autograd
        watched = inputs._replace(**{name: getattr(inputs, name).clone().requires_grad_()})
        assert scans(watched) == ("chunked_outputs" if name in "AD" else "FactoredScan")
        with torch.no_grad():
            assert scans(watched) == "factored_outputs"
    assert scans(inputs, initial_state().float().requires_grad_()) == "chunked_outputs"
    strong = inputs._replace(x=inputs.x.clone().requires_grad_(), A=inputs.A * 1e4)
    assert scans(strong) == "chunked_outputs"


def differentiated(function: Callable[..., Tensor], inputs: Inputs, scale: float = 1.0) -> tuple[Tensor, ...]:
    """Outputs, and gradients of ``x, dt, B, C`` for random weights of the outputs."""
    wanted = [t.clone().requires_grad_() for t in (inputs.x, inputs.dt, inputs.B, inputs.C)]
    x, dt, B, C = wanted
    y = function(x, dt, inputs.A, B, C, inputs.D)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    gradients = torch.autograd.grad(y, wanted, (scale * weights).to(y.dtype), retain_graph=True)
    return (y, *gradients)


def steep_inputs(places: list[int], exponent: float) -> Inputs:
    """Chunks of 64 tokens with all of their decay at some of them."""
    inputs = make_inputs(time=320)
    dt = torch.full((64,), 1e-4, dtype=torch.float64)
    dt[list(places)] = exponent * 0.99 / len(places)
    dt = dt.repeat(5)[None, :, None].expand(2, 320, HEADS).clone()
    dt[1, ::64] = 20.0  # which decays what comes from the chunk before
    return inputs._replace(A=-torch.ones(HEADS, dtype=torch.float64), dt=dt)


def split_chunk(inputs: Inputs) -> int | None:
    return factored_chunk(inputs.dt, inputs.A)
