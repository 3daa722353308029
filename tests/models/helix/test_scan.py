"""The chunked scan against the recurrence that defines it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_inputs import HEAD_DIM, HEADS, STATE, Inputs, initial_state, make_inputs
from torch import Tensor

from helix_sae.models.helix.definition import recurrence
from helix_sae.models.helix.fast.choice import chunked_scan
from helix_sae.models.helix.fast.scan import final_state


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
