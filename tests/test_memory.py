"""Memory that runs out is one screen: which step, how much, and what to lower."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline, node
from kedro.runner import SequentialRunner

from helix_sae.errors import MemoryLimitError
from helix_sae.hooks import ProjectHooks
from helix_sae.memory import is_out_of_memory

CUDA = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 15.77 GiB of which "
    "9.12 GiB is free. Process 1 has 6.61 GiB memory in use. See documentation for Memory Management "
    "(https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
)


def on_a_gpu() -> None:
    raise torch.OutOfMemoryError(CUDA)


def on_the_cpu() -> None:
    torch.empty(2**58, dtype=torch.uint8)


def in_numpy() -> None:
    np.empty(2**57, dtype=np.uint8)


def behind_another_error() -> None:
    try:
        on_a_gpu()
    except RuntimeError as error:
        raise ValueError("the batch could not be done") from error


@pytest.mark.parametrize("allocate", [on_a_gpu, on_the_cpu, in_numpy, behind_another_error])
def test_memory_that_runs_out_in_a_step_is_one_screen(allocate: Callable[[], None]) -> None:
    def step(extraction: dict[str, Any]) -> int:
        allocate()
        return 1

    made = node(step, "params:extraction", "x", name="record")
    pipeline = Pipeline([made], namespace="extraction", parameters={"params:extraction"}, outputs={"x"})
    catalog = DataCatalog()
    catalog["params:extraction"] = {"token_budget": 8192, "shard_tokens": None}
    hooks = _create_hook_manager()
    hooks.register(ProjectHooks())
    hooks.hook.before_pipeline_run(run_params={}, pipeline=pipeline, catalog=catalog)
    with pytest.raises(MemoryLimitError) as raised:
        SequentialRunner().run(pipeline, catalog, hooks, run_id="v")
    said = str(raised.value)
    assert said.startswith("record (extraction): there is not enough memory (")
    assert (
        "Lower extraction.token_budget (now 8,192), extraction.shard_tokens; or give fewer sequences" in said
    )
    assert len(said) < 800
    assert "https" not in said


def test_other_errors_are_left_as_they_are() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory is a phrase"))
    error = RuntimeError("a bug")
    ProjectHooks().on_node_error(error, SimpleNamespace(name="n"))  # pyright: ignore[reportArgumentType]
