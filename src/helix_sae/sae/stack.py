"""SAEs of one shape under training: one step of all of them at once, the same as a step of each alone.

Gradients are the same to the bit. So are parameters where a site's width is a multiple of 16; elsewhere Adam
rounds what does not fill a vector of the processor otherwise (1e-7).

A dictionary of a hundred features keeps no processor busy: most of a step is spent on telling it what to do.
Seeds, sites and configurations of the same shape therefore lie behind one another in memory, and each
operation of a step is one over all of them (batched products, one Adam).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.errors import DataError
from helix_sae.sae.objective import Params, StepResult
from helix_sae.sae.workers import SERIAL, Workers

if TYPE_CHECKING:
    from helix_sae.sae.learner import Learner

_ADAM_BETAS = (0.9, 0.999)
_UNCHECKED_STEPS = 32
"""Most steps on a GPU whose losses were not looked at."""


def stacks_of(learners: Iterable[Learner], n_parts: int) -> list[Stack]:
    """Put learners that can take their steps together into stacks, those of one kind into ``n_parts`` of them."""
    kinds: dict[Hashable, list[Learner]] = {}
    for learner in learners:
        kinds.setdefault(learner.kind, []).append(learner)
    stacks: list[Stack] = []
    for kind, alike in kinds.items():
        size = 1 if kind is None else -(-len(alike) // n_parts)
        stacks += [Stack(alike[i : i + size]) for i in range(0, len(alike), size)]
    return stacks


class Stack:
    """Learners of one kind (:attr:`Learner.kind`), whose parameters and moments it holds.

    Parameters
    ----------
    learners : sequence of Learner
        Their parameters become views of the stack's.
    """

    def __init__(self, learners: Sequence[Learner]) -> None:
        self.learners = list(learners)
        first = self.learners[0]
        self.weights: Params = {
            name: torch.stack([learner.params[name] for learner in self.learners]) for name in first.params
        }
        self.scale = torch.tensor([learner.scaling.scale for learner in self.learners]).view(-1, 1, 1)
        self.scale = self.scale.to(first.scaling.mean.device)
        self.mean = torch.stack([learner.scaling.mean for learner in self.learners]).unsqueeze(1)
        self.idle = torch.stack([learner.tokens_since_fired for learner in self.learners])
        fused = self.mean.device.type in ("cpu", "cuda")
        self.optimiser = torch.optim.Adam(
            self.weights.values(), lr=first.config.peak_rate, betas=_ADAM_BETAS, fused=fused
        )
        for name, weight in self.weights.items():
            count = torch.tensor(float(first.steps_done), device=weight.device if fused else "cpu")
            moments = [torch.stack([learner.moments[name][m] for learner in self.learners]) for m in (0, 1)]
            self.optimiser.state[weight] = {"step": count, "exp_avg": moments[0], "exp_avg_sq": moments[1]}
        for i, learner in enumerate(self.learners):
            learner.params = {name: weight[i] for name, weight in self.weights.items()}
            states = {name: self.optimiser.state[weight] for name, weight in self.weights.items()}
            learner.moments = {n: (s["exp_avg"][i], s["exp_avg_sq"][i]) for n, s in states.items()}
            learner.tokens_since_fired = self.idle[i]
            learner.stack = self
        self._unchecked: list[tuple[int, Tensor]] = []

    def scaled(self, batches: Sequence[Float[Tensor, "batch d_in"]]) -> Float[Tensor, "n batch d_in"]:
        """Scale the raw activations of each learner's batch."""
        return torch.stack(list(batches)).sub_(self.mean).mul_(self.scale)

    def step(
        self,
        z: Float[Tensor, "n batch d_in"],
        workers: Workers = SERIAL,
        see: Callable[..., Any] | None = None,
    ) -> list[Any]:
        """Learn from one batch of scaled activations each; give what ``see(learner, result, z)`` makes of each result.

        Raises
        ------
        DataError
            If a loss is not finite, that is, an activation was not. On a GPU up to some steps later, as it
            would stand still to be asked after each.
        """
        result = self._gradients(z, workers)
        self._unchecked.append((self.learners[0].steps_done, result.loss))
        if z.device.type == "cpu" or len(self._unchecked) >= _UNCHECKED_STEPS:
            self.check_losses()
        self._descend(result.gradients)
        self.idle.add_(z.shape[1]).masked_fill_(result.fired > 0, 0)
        seen: list[Any] = []
        for i, learner in enumerate(self.learners):
            learner.tokens_seen += z.shape[1]
            learner.maybe_resample(result.residual[i], z[i])
            learner.steps_done += 1
            if see is not None:
                seen.append(see(learner, _of_one(result, i), z[i]))
        return seen

    def check_losses(self) -> None:
        """Raise a DataError if the loss of a step since the last check was not finite."""
        checked, self._unchecked = self._unchecked, []
        losses = torch.stack([loss for _, loss in checked]).tolist() if checked else []
        for (step, _), of_each in zip(checked, losses, strict=True):
            for learner, loss in zip(self.learners, of_each, strict=True):
                if not math.isfinite(loss):
                    raise DataError(
                        f"The loss of the SAE {learner.key.config!r} at site {learner.key.site} became {loss}"
                        f" at step {step}: the activations of that batch are not finite, or the learning rate"
                        f" ({learner.rate():.2g}) is far too high."
                    )

    def _gradients(self, z: Float[Tensor, "n batch d_in"], workers: Workers) -> StepResult:
        learners = self.learners
        contexts = [learner.context(workers) for learner in learners]
        with torch.autocast(z.device.type, torch.bfloat16, enabled=learners[0].precision == "bfloat16"):
            if learners[0].stacked:
                objectives = [learner.objective for learner in learners]
                return learners[0].objective.stacked_gradients(objectives, self.weights, z, contexts)
            results = [
                learner.gradients(learner.params, z[i], contexts[i]) for i, learner in enumerate(learners)
            ]
        return _joined(results)

    def _descend(self, gradients: Params) -> None:
        first = self.learners[0]
        for name in first.objective.unit_rows:
            rows, gradient = self.weights[name], gradients[name]
            # What only changes a row's length would be undone by the projection, yet count in Adam's moments.
            gradient.sub_((gradient * rows).sum(2, keepdim=True) * rows)
        clip_(list(gradients.values()), first.config.gradient_clip)
        for name, weight in self.weights.items():
            weight.grad = gradients[name]
        self.optimiser.param_groups[0]["lr"] = first.rate()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        for name in first.objective.unit_rows:
            rows = self.weights[name]
            rows.div_(rows.norm(dim=2, keepdim=True))


def clip_(gradients: list[Tensor], largest: float) -> None:
    """Scale the gradients of each SAE in place so that their joint L2 norm is at most ``largest``."""
    # Along the last dimension a sum does not depend on how many there are beside it.
    norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients], dim=1)
    norm = torch.linalg.vector_norm(norms, dim=1)
    if norm.device.type == "cpu" and float(norm.max()) <= largest:
        return
    factor = (largest / norm).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *[1] * (gradient.ndim - 1)))


def _joined(results: list[StepResult]) -> StepResult:
    """Results of single SAEs as those of a stack."""
    if len(results) == 1:
        one = results[0]
        gradients = {name: gradient.unsqueeze(0) for name, gradient in one.gradients.items()}
        rest = (getattr(one, name).unsqueeze(0) for name in _MEASURES)
        return StepResult(gradients, *rest)
    gradients = {name: torch.stack([r.gradients[name] for r in results]) for name in results[0].gradients}
    return StepResult(gradients, *(torch.stack([getattr(r, name) for r in results]) for name in _MEASURES))


def _of_one(result: StepResult, i: int) -> StepResult:
    gradients = {name: gradient[i] for name, gradient in result.gradients.items()}
    return StepResult(gradients, *(getattr(result, name)[i] for name in _MEASURES))


_MEASURES = ("residual", "squared_error", "l1", "loss", "fired")
