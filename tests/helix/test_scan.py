"""The chunked scan against the recurrence that defines it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from helix_sae.helix import scan
from helix_sae.helix.scan import chunked_scan, final_state, recurrence, scan_outputs

HEADS, HEAD_DIM, STATE = 4, 3, 5


class Inputs(NamedTuple):
    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor

    def to(self, dtype: torch.dtype) -> Inputs:
        return Inputs(*(t.to(dtype) for t in self))


def make_inputs(time: int, groups: int = 1, batch: int = 2, seed: int = 0) -> Inputs:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    return Inputs(
        x=normal(batch, time, HEADS, HEAD_DIM),
        dt=torch.nn.functional.softplus(normal(batch, time, HEADS) - 1),
        A=-torch.exp(normal(HEADS)),
        B=normal(batch, time, groups, STATE),
        C=normal(batch, time, groups, STATE) / STATE,
        D=normal(HEADS),
    )


def initial_state(batch: int = 2) -> Tensor:
    return torch.randn(
        batch, HEADS, STATE, HEAD_DIM, generator=torch.Generator().manual_seed(9), dtype=torch.float64
    )


def test_the_recurrence_is_the_one_of_the_paper():
    inputs = make_inputs(time=7, groups=2, batch=1)
    x, dt, A, B, C, D = (t.numpy() for t in inputs)
    y = np.zeros_like(x)
    for head in range(HEADS):
        state = np.zeros((STATE, HEAD_DIM))
        for t in range(7):
            step = dt[0, t, head]
            state = np.exp(step * A[head]) * state + step * np.outer(B[0, t, head % 2], x[0, t, head])
            y[0, t, head] = state.T @ C[0, t, head % 2] + D[head] * x[0, t, head]
    np.testing.assert_allclose(recurrence(*inputs).y.numpy(), y, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("time", [1, 63, 64, 65, 255, 256, 257, 300, 1000, 4096])
def test_float32_scan_equals_the_float64_recurrence(time: int, groups: int):
    inputs = make_inputs(time, groups)
    fast, slow = chunked_scan(*inputs.to(torch.float32)), recurrence(*inputs)
    assert fast.y.dtype == torch.float32
    torch.testing.assert_close(fast.y.double(), slow.y, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fast.state.double(), slow.state, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("largest", [-1.0, 8.0, 60.0])
@pytest.mark.parametrize("time", [1, 31, 64, 65, 200, 257])
def test_decays_split_or_not_give_the_same(
    time: int, largest: float, groups: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scan, "_LARGEST_EXPONENT", largest)
    inputs = make_inputs(time, groups)._replace(A=-torch.tensor([0.05, 0.1, 0.2, 0.5], dtype=torch.float64))
    narrow = inputs.to(torch.float32)
    chunk = split_chunk(narrow)
    assert (chunk is None) == (largest < 0)
    if time >= 200:
        assert chunk in {-1.0: (None,), 8.0: (16, 32), 60.0: (64,)}[largest]
    for state in (None, initial_state()):
        expected = recurrence(*inputs, initial_state=state).y
        found = scan_outputs(*narrow, initial_state=None if state is None else state.float())
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(scan_outputs(*inputs, initial_state=state), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("places", [[1], [63], [30, 31, 32], range(1, 64), range(1, 20), range(50, 64)])
def test_decays_near_the_largest_exponent_are_exact_enough(places: list[int]):
    """One factor is as large, and the other as small, as they may be."""
    inputs = make_inputs(time=320)
    dt = torch.full((64,), 1e-4, dtype=torch.float64)
    dt[list(places)] = scan._LARGEST_EXPONENT * 0.99 / len(places)
    dt = dt.repeat(5)[None, :, None].expand(2, 320, HEADS).clone()
    dt[1, ::64] = 20.0  # which decays what comes from the chunk before
    inputs = inputs._replace(A=-torch.ones(HEADS, dtype=torch.float64), dt=dt)
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
        assert split_chunk(changed) == split_chunk(inputs) == 64
        found = scan_outputs(*changed)
        assert torch.equal(found[:, :at], y[:, :at])
        assert not torch.equal(found[:, at], y[:, at])


def test_decays_are_not_split_where_they_are_too_strong_or_a_gradient_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
):
    inputs = make_inputs(time=100).to(torch.float32)
    assert split_chunk(inputs) is not None
    assert split_chunk(inputs._replace(A=inputs.A * 1e3)) is None
    assert split_chunk(inputs._replace(A=inputs.A * torch.nan)) is None
    split: list[int] = []
    original = scan._factored_outputs
    monkeypatch.setattr(scan, "_factored_outputs", lambda *a: split.append(a[6]) or original(*a))
    for tensor in (*inputs, initial_state().float()):
        tensor.requires_grad_()
        state = tensor if tensor.ndim == 4 and tensor.shape[2] == STATE and tensor.shape[1] == HEADS else None
        scan_outputs(*inputs, initial_state=state)
        assert split == []
        tensor.requires_grad_(False)
    with torch.no_grad():
        inputs.x.requires_grad_()
        scan_outputs(*inputs)
    assert len(split) == 1


def split_chunk(inputs: Inputs) -> int | None:
    return scan._factored_chunk(inputs.x, inputs.dt, inputs.A, scan.DEFAULT_CHUNK)


@pytest.mark.parametrize("time", [1, 40, 130, 300])
def test_initial_state(time: int):
    inputs, state = make_inputs(time, groups=2), initial_state()
    fast = chunked_scan(*inputs.to(torch.float32), initial_state=state.float())
    slow = recurrence(*inputs, initial_state=state)
    torch.testing.assert_close(fast.y.double(), slow.y, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fast.state.double(), slow.state, rtol=1e-5, atol=1e-5)


@given(
    time=st.integers(1, 40),
    chunk=st.integers(1, 16),
    groups=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 2**16),
    starts_empty=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_length_and_chunk(time: int, chunk: int, groups: int, seed: int, starts_empty: bool):
    inputs = make_inputs(time, groups, seed=seed)
    state = None if starts_empty else initial_state()
    fast, slow = (
        chunked_scan(*inputs, chunk=chunk, initial_state=state),
        recurrence(*inputs, initial_state=state),
    )
    torch.testing.assert_close(fast.y, slow.y, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(fast.state, slow.state, rtol=1e-10, atol=1e-10)


@given(
    time=st.integers(0, 60),
    groups=st.sampled_from([1, 2]),
    seed=st.integers(0, 2**16),
    starts_empty=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_final_state(time: int, groups: int, seed: int, starts_empty: bool):
    inputs = make_inputs(time, groups, seed=seed)
    start = torch.zeros(2, HEADS, STATE, HEAD_DIM, dtype=torch.float64) if starts_empty else initial_state()
    expected = recurrence(*inputs, initial_state=start).state if time else start
    found = final_state(
        inputs.x, inputs.dt, inputs.A, inputs.B, initial_state=None if starts_empty else start
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("chunk", [8, 64])
@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_equal_those_of_the_recurrence(groups: int, chunk: int):
    inputs, state = make_inputs(time=37, groups=groups), initial_state()
    found = _gradients(lambda *a: chunked_scan(*a[:-1], chunk=chunk, initial_state=a[-1]), inputs, state)
    expected = _gradients(lambda *a: recurrence(*a[:-1], initial_state=a[-1]), inputs, state)
    for name, f, e in zip((*Inputs._fields, "initial_state"), found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-9, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


def test_strong_decay_neither_overflows_nor_loses_its_gradient():
    inputs = make_inputs(time=200).to(torch.float32)
    inputs = inputs._replace(A=inputs.A * 1e4)
    leaves = [t.clone().requires_grad_() for t in inputs]
    y = chunked_scan(*leaves).y
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves)


def test_inputs_are_left_as_they_were():
    inputs = make_inputs(time=150, groups=2).to(torch.float32)
    before = [t.clone() for t in inputs]
    with torch.no_grad():
        chunked_scan(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


def _gradients(function, inputs: Inputs, state: Tensor) -> list[Tensor]:
    leaves = [t.clone().requires_grad_() for t in (*inputs, state)]
    result = function(*leaves)
    weights = torch.Generator().manual_seed(3)
    loss = sum((t * torch.randn(t.shape, generator=weights, dtype=t.dtype)).sum() for t in result)
    return list(torch.autograd.grad(loss, leaves))
