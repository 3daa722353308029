"""One SAE under training: its parameters, optimiser, schedule, random stream and dead-feature clock."""

from __future__ import annotations

import hashlib
import math
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.errors import ConfigurationError, DataError
from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.compiled import compiled_gradients
from helix_sae.sae.config import AuxiliaryConfig, SaeConfig
from helix_sae.sae.objective import Objective, Params, StepContext, StepResult
from helix_sae.sae.registry import architecture_of
from helix_sae.sae.scaling import InputScaling
from helix_sae.sae.workers import SERIAL, Workers

Precision = Literal["float32", "bfloat16"]

_ADAM_BETAS = (0.9, 0.999)
_RESAMPLED_ENCODER_NORM = 0.2
_UNCHECKED_STEPS = 32
"""Most steps on a GPU whose losses were not looked at."""


class SaeKey(NamedTuple):
    """Names one SAE of a run: the site it reads, the name of its configuration, and which of its seeds it is."""

    site: str
    config: str
    seed: int = 0


class Learner:
    """One SAE under training.

    Parameters
    ----------
    key : SaeKey
        Names it in messages and tables.
    config : SaeConfig
        With ``d_in`` filled in.
    scaling : InputScaling
        Of its site; where its mean lies, the SAE is trained.
    n_steps : int
        Length of its schedules.
    seed : int
        Seed of the run. The SAE's own stream depends on this, its key's seed, its site and its configuration only, not on
        what else is trained.
    precision : {"float32", "bfloat16"}
        Of the matrix products of a step (autocast); parameters, sums and the optimiser stay float32.
    sample : Tensor (n, d_in), optional
        Scaled activations that ``config.data_start`` draws from.
    compiled : bool
        Whether gradients go through ``torch.compile``; see :mod:`helix_sae.sae.compiled`.

    Raises
    ------
    ConfigurationError
        If ``config.data_start`` asks for a sample and there is none.
    """

    def __init__(
        self,
        key: SaeKey,
        config: SaeConfig,
        scaling: InputScaling,
        n_steps: int,
        seed: int,
        precision: Precision = "float32",
        sample: Float[Tensor, "n d_in"] | None = None,
        compiled: bool = False,
    ) -> None:
        device = scaling.mean.device
        self.precision = precision
        self.key = key
        self.config = config
        self.scaling = scaling
        self.n_steps = n_steps
        self.steps_done = 0
        self.tokens_seen = 0
        self.plateau: dict[str, float] = {"best": float("-inf"), "waited": 0}
        self.order = seed + config.seed + key.seed
        self.generator = torch.Generator().manual_seed(stream_seed(self.order, key.site, config))
        self.objective: Objective[Any] = architecture_of(config).objective(config)
        start = self.objective.initialise(self.generator)
        if config.data_start > 0:
            lean_on_data(start, config.data_start, sample, self.generator)
        self.params: Params = {name: value.to(device).requires_grad_() for name, value in start.items()}
        fused = device.type in ("cpu", "cuda")
        self.optimiser = torch.optim.Adam(
            self.params.values(), lr=config.peak_rate, betas=_ADAM_BETAS, fused=fused
        )
        self.tokens_since_fired = torch.zeros(config.d_sae, dtype=torch.int64, device=device)
        self._gradients = compiled_gradients(self.objective) if compiled else self.objective.gradients
        self._all_live_until = 0
        self._unchecked: list[tuple[int, Tensor]] = []

    def step(self, z: Float[Tensor, "n d_in"], workers: Workers = SERIAL) -> StepResult:
        """Learn from one batch of scaled activations.

        Raises
        ------
        DataError
            If the loss is not finite, that is, an activation was not. On a GPU up to some steps later, as it would
            stand still to be asked after each.
        """
        context = StepContext(self.sparsity_weight(), self._dead_now(), workers)
        weights = {name: value.detach() for name, value in self.params.items()}
        with torch.autocast(z.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            result = self._gradients(weights, z, context)
        self._unchecked.append((self.steps_done, result.loss))
        if z.device.type == "cpu" or len(self._unchecked) >= _UNCHECKED_STEPS:
            self.check_losses()
        self._descend(weights, result.gradients)
        self._count(result, z.shape[0])
        self._maybe_resample(weights, result, z)
        self.steps_done += 1
        return result

    def check_losses(self) -> None:
        """Raise a DataError if the loss of a step since the last check was not finite."""
        checked, self._unchecked = self._unchecked, []
        losses = torch.stack([loss for _, loss in checked]).tolist() if checked else []
        for (step, _), loss in zip(checked, losses, strict=True):
            if not math.isfinite(loss):
                raise DataError(
                    f"The loss of the SAE {self.key.config!r} at site {self.key.site} became {loss} at step {step}: "
                    f"the activations of that batch are not finite, or the learning rate ({self.rate():.2g}) is far "
                    "too high."
                )

    def dead(self) -> Tensor:
        """Features that were not active for ``dead_after_tokens`` tokens, bool (d_sae,)."""
        return self.tokens_since_fired >= self.config.dead_after_tokens

    def _dead_now(self) -> Tensor | None:
        """:meth:`dead`, None when there is none; looked at when one can be, as a GPU has to be waited for."""
        if self.tokens_seen < self._all_live_until:
            return None
        dead = self.dead()
        if bool(dead.any()):
            return dead
        longest = int(self.tokens_since_fired.max())
        self._all_live_until = self.tokens_seen + self.config.dead_after_tokens - longest
        return None

    def rate(self) -> float:
        """Learning rate of the coming step: linear rise, plateau, linear fall to (almost) 0."""
        done = self.steps_done
        warmup = self.config.warmup_fraction * self.n_steps
        decay = self.config.decay_fraction * self.n_steps
        rise = (done + 1) / (warmup + 1)
        fall = (self.n_steps - done) / (decay + 1)
        return self.config.peak_rate * max(0.0, min(1.0, rise, fall))

    def sparsity_weight(self) -> float:
        """Share of the full sparsity penalty at the coming step."""
        warmup = getattr(self.config, "sparsity_warmup_fraction", 0.0) * self.n_steps
        return min(1.0, (self.steps_done + 1) / (warmup + 1))

    def export(self, sample: Float[Tensor, "n d_in"]) -> SparseAutoencoder:
        """Give the SAE as it stands, for raw activations, on the CPU; ``sample`` are scaled activations."""
        self.check_losses()
        params = {name: value.detach().cpu() for name, value in self.params.items()}
        return self.objective.export(params, self.scaling.to("cpu"), sample.cpu())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything the coming steps depend on: tensors, and counters as plain values."""
        self.check_losses()
        tensors = {
            "tokens_since_fired": self.tokens_since_fired.cpu(),
            "generator": self.generator.get_state(),
        }
        for name, value in self.params.items():
            tensors[f"params/{name}"] = value.detach().cpu().clone()
            for key, moment in self.optimiser.state[value].items():
                tensors[f"optimiser/{name}/{key}"] = moment.detach().cpu().clone()
        return tensors, {
            "steps_done": self.steps_done,
            "tokens_seen": self.tokens_seen,
            "plateau": self.plateau,
        }

    def restore(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        self.steps_done = int(counters["steps_done"])
        self.tokens_seen = int(counters["tokens_seen"])
        self.plateau = dict(counters["plateau"])
        self._all_live_until, self._unchecked = 0, []
        self.generator.set_state(tensors["generator"])
        self.tokens_since_fired.copy_(tensors["tokens_since_fired"])
        for name, value in self.params.items():
            value.data.copy_(tensors[f"params/{name}"])
            prefix = f"optimiser/{name}/"
            kept = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            self.optimiser.state[value] = {key: t.to(value.device, copy=True) for key, t in kept.items()}

    def watch(self, explained_variance: float, min_gain: float) -> None:
        """Note a held-out measure; ``plateau["waited"]`` counts those since the last gain of ``min_gain``."""
        if explained_variance > self.plateau["best"] + min_gain:
            self.plateau = {"best": explained_variance, "waited": 0}
        else:
            self.plateau = {**self.plateau, "waited": self.plateau["waited"] + 1}

    def _descend(self, weights: Params, gradients: Params) -> None:
        for name in self.objective.unit_rows:
            rows, gradient = weights[name], gradients[name]
            # What only changes a row's length would be undone by the projection, yet count in Adam's moments.
            gradient.sub_((gradient * rows).sum(1, keepdim=True) * rows)
        clip_(list(gradients.values()), self.config.gradient_clip)
        for name, value in self.params.items():
            value.grad = gradients[name]
        self.optimiser.param_groups[0]["lr"] = self.rate()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        for name in self.objective.unit_rows:
            weights[name].div_(weights[name].norm(dim=1, keepdim=True))

    def _count(self, result: StepResult, n: int) -> None:
        self.tokens_seen += n
        self.tokens_since_fired.add_(n).masked_fill_(result.fired > 0, 0)

    def _maybe_resample(self, weights: Params, result: StepResult, z: Float[Tensor, "n d_in"]) -> None:
        """Restart dead features at batch ends that cross a multiple of ``dead_after_tokens``.

        Where AuxK is on, only those whose pre-activation is nowhere positive: AuxK does not move them, and it is
        better left to move the others. Nothing is restarted during the fall of the learning rate, where it could no
        longer learn.
        """
        period = self.config.dead_after_tokens
        crossed = self.tokens_seen // period > (self.tokens_seen - z.shape[0]) // period
        settled = self.steps_done >= (1 - self.config.decay_fraction) * self.n_steps
        if not self.config.resample or not crossed or settled:
            return
        dead = self.dead().nonzero().squeeze(1)
        if isinstance(self.config, AuxiliaryConfig) and self.config.aux_coefficient > 0 and dead.numel():
            pre = torch.addmm(weights["b_enc"][dead], z - weights["b_dec"], weights["encoder"][dead].T)
            dead = dead[pre.amax(0) <= 0]
        if dead.numel():
            self._restart(weights, dead, -result.residual)

    def _restart(self, weights: Params, dead: Tensor, error: Float[Tensor, "n d_in"]) -> None:
        """Point dead features at badly reconstructed tokens (Bricken et al. 2023).

        The encoder starts small, so that nothing is disturbed, unless features compete for a place among the k largest or
        above a threshold: a small one would never get there.
        """
        chance = error.square().sum(1).clamp_min(1e-12).cpu()
        chosen = torch.multinomial(chance, dead.numel(), replacement=True, generator=self.generator)
        direction = error[chosen.to(error.device)]
        direction = direction / direction.norm(dim=1, keepdim=True).clamp_min(1e-12)
        tied = "decoder" not in weights
        share = 1.0 if isinstance(self.config, AuxiliaryConfig) else _RESAMPLED_ENCODER_NORM
        size = 1.0 if tied else share * float(weights["encoder"].norm(dim=1).mean())
        weights["encoder"][dead] = direction * size
        if not tied:
            weights["decoder"][dead] = direction
        for name, value in self.params.items():
            if name == "b_dec":
                continue
            if value.ndim == 1:
                weights[name][dead] = self.objective.restart_value(name)
            state = self.optimiser.state[value]
            state["exp_avg"][dead] = 0.0
            state["exp_avg_sq"][dead] = 0.0
        self.tokens_since_fired[dead] = 0


def lean_on_data(
    start: Params, share: float, sample: Float[Tensor, "n d_in"] | None, generator: torch.Generator
) -> None:
    """Turn the starting directions, in place, towards activations that are drawn from a sample."""
    if sample is None or not len(sample):
        raise ConfigurationError(
            "data_start needs a sample of activations to start from; give one, or set it to 0."
        )
    rows = start["encoder"]
    drawn = sample.cpu()[torch.randint(len(sample), (len(rows),), generator=generator)]
    drawn = drawn / drawn.norm(dim=1, keepdim=True).clamp_min(1e-12)
    leaning = torch.lerp(rows, drawn, share)
    leaning = leaning / leaning.norm(dim=1, keepdim=True).clamp_min(1e-12)
    for name in ("encoder", "decoder"):
        if name in start:
            start[name] = leaning.clone()


def clip_(gradients: list[Tensor], largest: float) -> None:
    """Scale gradients in place so that their joint L2 norm is at most ``largest``."""
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
    if norm.device.type == "cpu" and float(norm) <= largest:
        return
    factor = (largest / norm).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor)


def stream_seed(seed: int, site: str, config: SaeConfig) -> int:
    """Seed of one SAE's random stream, the same whatever else is trained."""
    text = f"{seed}|{site}|{config.model_dump_json(exclude={'seed'})}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
