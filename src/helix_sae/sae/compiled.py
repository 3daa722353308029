"""Gradients of an objective through ``torch.compile``: dense products with all that lies between them fused.

What is compiled is :meth:`Objective.forward`, the definition of the loss, and what autograd makes of it. On a
GPU the products are cheap and each operation between them goes through memory and costs a launch; the
hand-written gradients, which touch active pairs only, are many small operations there. On a CPU they are the
faster ones.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.sae.objective import Objective, Params, StepContext, StepResult

Gradients = Callable[[Params, Float[Tensor, "n d_in"], StepContext], StepResult]


def compiled_gradients(objective: Objective[Any], backend: str = "inductor") -> Gradients:
    """:meth:`Objective.gradients` of an objective, compiled at the first call.

    Gradients and measures of a call hold until the next call, of any objective; the loss stays.

    Where features are dead the plain ones are taken: how many there are changes from step to step.

    Parameters
    ----------
    objective : Objective
    backend : str
        Of ``torch.compile``.
    """
    # torch.compile keeps what it made with the code, up to a number of versions; each objective gets a code
    # of its own.
    own = FunctionType(_measured.__code__.replace(), _measured.__globals__, _measured.__name__)
    # On a GPU the launches are recorded once and replayed, as launching takes longer than computing.
    replayed: dict[str, Any] | None = {"triton.cudagraphs": True} if backend == "inductor" else None
    measured = cast(
        "Callable[..., tuple[Tensor, ...]]",
        torch.compile(own, fullgraph=True, backend=backend, options=replayed),
    )

    def gradients(params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> StepResult:
        if context.dead is not None:
            return objective.gradients(params, z, context)
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        # As a tensor: a number is taken for a constant, and a new one would be compiled anew.
        weight = cast("float", torch.full((), context.sparsity_weight, device=z.device))
        torch.compiler.cudagraph_mark_step_begin()  # what the last step gave may be overwritten
        with torch.enable_grad():
            loss, *measures = measured(objective, leaves, z, StepContext(weight))
            found = torch.autograd.grad(loss, list(leaves.values()))
        residual, squared_error, l1, fired = measures
        return StepResult(
            dict(zip(leaves, found, strict=True)), residual, squared_error, l1, loss.detach().clone(), fired
        )

    return gradients


def _measured(
    objective: Objective[Any], params: Params, z: Float[Tensor, "n d_in"], context: StepContext
) -> tuple[Tensor, ...]:
    """Loss (with its graph), residual, squared error, summed codes a token, and tokens on which each feature is active."""
    result = objective.forward(params, z, context)
    residual = (result.reconstruction.detach() - z).float()
    codes = result.codes.detach()
    l1 = codes.sum(dtype=torch.float32) / z.shape[0]
    return result.loss.float(), residual, residual.square().sum(), l1, (codes != 0).sum(0)
