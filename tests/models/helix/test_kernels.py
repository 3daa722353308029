"""mamba-ssm's scan is used where it is right, and only there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from test_scan import make_inputs
from torch import Tensor

from helix_sae.models.helix.definition import recurrence
from helix_sae.models.helix.fast import kernels
from helix_sae.models.helix.fast.choice import scan_outputs
from helix_sae.models.helix.fast.kernels import installed_scan


def plain(*inputs: Tensor) -> Tensor:
    return recurrence(*inputs).y


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[..., Tensor]], None]]:
    """Puts a function in the place of mamba-ssm's."""

    def put(function: Callable[..., Tensor]) -> None:
        for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        module = ModuleType(kernels._MODULE)
        module.mamba_chunk_scan_combined = function
        monkeypatch.setitem(sys.modules, kernels._MODULE, module)

    installed_scan.cache_clear()
    yield put
    installed_scan.cache_clear()


def test_a_scan_that_is_right_is_used(install: Callable[[Callable[..., Tensor]], None]) -> None:
    asked: list[tuple[int, ...]] = []

    def right(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk_size: int, D: Tensor) -> Tensor:
        asked.append((chunk_size, *x.shape))
        return plain(x, dt, A, B, C, D) * (1 + 1e-4)

    install(right)
    found = installed_scan(plain, "cpu")
    assert found is not None
    inputs = make_inputs(time=20).to(torch.float32)
    torch.testing.assert_close(found(*inputs), scan_outputs(*inputs), rtol=1e-3, atol=1e-3)
    assert len(asked) == 2
    assert installed_scan(plain, "cpu") is found


def test_a_scan_that_is_wrong_or_fails_is_not(install: Callable[[Callable[..., Tensor]], None]) -> None:
    def wrong(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk_size: int, D: Tensor) -> Tensor:
        return plain(x, dt, A, B, C, D) * 1.01

    def broken(*_: object, **__: object) -> Tensor:
        raise RuntimeError("no such instruction")

    def not_a_number(x: Tensor, *_: object, **__: object) -> Tensor:
        return torch.full_like(x, torch.nan)

    for function in (wrong, broken, not_a_number):
        installed_scan.cache_clear()
        install(function)
        assert installed_scan(plain, "cpu") is None


def test_without_the_package_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    installed_scan.cache_clear()
    assert installed_scan(plain, "cpu") is None
    installed_scan.cache_clear()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_scan_on_a_gpu_is_that_of_the_cpu() -> None:
    inputs = make_inputs(time=300).to(torch.float32)
    on_gpu = scan_outputs(*(t.cuda() for t in inputs)).cpu()
    torch.testing.assert_close(on_gpu, scan_outputs(*inputs), rtol=1e-3, atol=1e-3)
