"""One SAE under training: its parameters, moments, schedule, random stream and dead-feature clock.

Its steps are those of the stack that it lies in (:mod:`helix_sae.sae.stack`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.errors import ConfigurationError
from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.compiled import compiled_gradients
from helix_sae.sae.config import AuxiliaryConfig, SaeConfig
from helix_sae.sae.objective import Objective, Params, StepContext, StepResult
from helix_sae.sae.registry import architecture_of
from helix_sae.sae.scaling import InputScaling
from helix_sae.sae.sparse import feature_sum
from helix_sae.sae.stack import Stack
from helix_sae.sae.workers import SERIAL, Workers

Precision = Literal["float32", "bfloat16"]

_RESAMPLED_ENCODER_NORM = 0.2


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
        Seed of the run. The SAE's own stream depends on this, its key's seed, its site and its configuration
        only, not on what else is trained.
    precision : {"float32", "bfloat16"}
        Of the matrix products of a step (autocast); parameters, sums and the optimiser stay float32.
    sample : Tensor (n, d_in), optional
        Scaled activations that ``config.data_start`` draws from.
    compiled : bool
        Whether gradients go through ``torch.compile``; see :mod:`helix_sae.sae.compiled`.

    Attributes
    ----------
    start : Tensor (d_sae, d_in)
        Where each feature's decoder row began: its first direction, or that from which it was last restarted.

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
        self.precision: Precision = precision
        self.key = key
        self.final = config
        self.scaling = scaling
        self.n_steps = n_steps
        self.steps_done = 0
        self.tokens_seen = 0
        self.plateau: dict[str, float] = {"best": float("inf"), "waited": 0}
        self.lowest: Params = {}
        self.order = seed + config.seed + key.seed
        self.generator = torch.Generator().manual_seed(stream_seed(self.order, key.site, config))
        self.compiled = compiled
        self._take(config.at_the_start)
        start = self.objective.initialise(self.generator)
        if config.data_start > 0:
            lean_on_data(start, config.data_start, sample, self.generator)
        self.params: Params = {name: value.to(device) for name, value in start.items()}
        self.start = _decoder_rows(self.params).clone()
        self.moments = {n: (torch.zeros_like(v), torch.zeros_like(v)) for n, v in self.params.items()}
        self.tokens_since_fired = torch.zeros(self.objective.d_sae, dtype=torch.int64, device=device)
        self.stack: Stack = Stack([self])

    def _take(self, config: SaeConfig) -> None:
        """Train by a configuration from now on."""
        self.config = config
        self.objective: Objective[Any] = architecture_of(config).objective(config)
        self.gradients = compiled_gradients(self.objective) if self.compiled else self.objective.gradients
        self._all_live_until = 0

    @property
    def stacked(self) -> bool:
        """Whether a step of several SAEs like this one is computed as one."""
        return not self.compiled and self.objective.stackable

    @property
    def kind(self) -> Hashable:
        """SAEs with the same one can share their steps; None where there is nothing to share."""
        if not self.stacked:
            return None
        config, shape = self.config, (self.objective.d_sae, self.config.d_in)
        schedule = (
            config.peak_rate,
            config.warmup_fraction,
            config.decay_fraction,
            self.n_steps,
            self.steps_done,
        )
        return (config.architecture, *shape, *schedule, config.gradient_clip, self.precision)

    def step(self, z: Float[Tensor, "n d_in"], workers: Workers = SERIAL) -> StepResult:
        """Learn from one batch of scaled activations, alone."""
        if len(self.stack.learners) > 1:
            Stack([self])
        return self.stack.step(z.unsqueeze(0), workers, lambda _, result, __: result)[0]

    def context(self, workers: Workers = SERIAL) -> StepContext:
        """What the coming step depends on."""
        revives = isinstance(self.config, AuxiliaryConfig) and self.config.aux_coefficient > 0
        return StepContext(self.sparsity_weight(), self._dead_now() if revives else None, workers)

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

    def rate(self, done: int | None = None) -> float:
        """Learning rate after ``done`` steps, by default of the coming one: linear rise, plateau, fall to (almost) 0."""
        done = self.steps_done if done is None else done
        warmup = self.config.warmup_fraction * self.n_steps
        decay = self.config.decay_fraction * self.n_steps
        rise = (done + 1) / (warmup + 1)
        fall = (self.n_steps - done) / (decay + 1)
        return self.config.peak_rate * max(0.0, min(1.0, rise, fall))

    def sparsity_weight(self) -> float:
        """Share of the full sparsity penalty at the coming step."""
        warmup = getattr(self.config, "sparsity_warmup_fraction", 0.0) * self.n_steps
        return min(1.0, (self.steps_done + 1) / (warmup + 1))

    @property
    def prunes_now(self) -> bool:
        """Whether the features that it has too many are to go before the coming step."""
        surplus = self.objective.d_sae > self.final.d_sae
        return surplus and self.steps_done >= self.final.prune_fraction * self.n_steps

    def prune(self, sample: Float[Tensor, "n d_in"]) -> None:
        """Keep the features that carry most of scaled activations, by their codes' squares; to be stacked anew."""
        active = self.export(sample).encode_active(
            sample.cpu() / self.scaling.scale + self.scaling.mean.cpu()
        )
        carried = feature_sum(active, active.codes.square(), self.objective.d_sae)
        kept = carried.topk(self.final.d_sae).indices.sort().values.to(self.scaling.mean.device)
        self._take(self.final)

        def of_kept(name: str, value: Tensor) -> Tensor:
            return value.clone() if name == "b_dec" else value[kept]

        self.params = {name: of_kept(name, value) for name, value in self.params.items()}
        self.moments = {n: (of_kept(n, m), of_kept(n, v)) for n, (m, v) in self.moments.items()}
        self.tokens_since_fired = self.tokens_since_fired[kept]
        self.start = self.start[kept]
        Stack([self])

    def export(self, sample: Float[Tensor, "n d_in"]) -> SparseAutoencoder:
        """Give the SAE as it stands, for raw activations, on the CPU; ``sample`` are scaled activations."""
        self.stack.check_losses()
        params = {name: value.cpu() for name, value in self.params.items()}
        return self.objective.export(params, self.scaling.to("cpu"), sample.cpu())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything the coming steps depend on: tensors, and counters as plain values."""
        self.stack.check_losses()
        tensors = {
            "tokens_since_fired": self.tokens_since_fired,
            "generator": self.generator.get_state(),
            "start": self.start,
        }
        for name, value in self.params.items():
            tensors[f"params/{name}"] = value
            tensors[f"mean/{name}"], tensors[f"square/{name}"] = self.moments[name]
        tensors.update({f"lowest/{name}": value for name, value in self.lowest.items()})
        return {name: value.cpu().clone() for name, value in tensors.items()}, {
            "steps_done": self.steps_done,
            "tokens_seen": self.tokens_seen,
            "plateau": self.plateau,
        }

    def restore(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        device = self.scaling.mean.device
        self.steps_done = int(counters["steps_done"])
        self.tokens_seen = int(counters["tokens_seen"])
        self.plateau = dict(counters["plateau"])
        self.generator.set_state(tensors["generator"])
        self._take(self.final if len(tensors["tokens_since_fired"]) == self.final.d_sae else self.config)
        self.tokens_since_fired = tensors["tokens_since_fired"].to(device, copy=True)
        self.start = tensors["start"].to(device, copy=True)
        placed = {name: value.to(device, copy=True) for name, value in tensors.items()}
        self.params = {name: placed[f"params/{name}"] for name in self.params}
        self.moments = {name: (placed[f"mean/{name}"], placed[f"square/{name}"]) for name in self.params}
        lowest = {
            name.partition("/")[2]: value for name, value in placed.items() if name.startswith("lowest/")
        }
        self.lowest = lowest
        Stack([self])

    @property
    def settled(self) -> bool:
        """Whether the price of activity counts in full, no feature is to be let go any more and the learning rate falls."""
        whole = self.sparsity_weight() >= 1.0 and self.objective.d_sae == self.final.d_sae
        return whole and self._rate_falls

    @property
    def _rate_falls(self) -> bool:
        return self.steps_done >= (1 - self.config.decay_fraction) * self.n_steps

    def watch(self, z: Float[Tensor, "n d_in"], min_gain: float) -> None:
        """Note the loss on held-out scaled activations; ``plateau["waited"]`` counts those since it last fell."""
        with torch.no_grad():
            loss = float(self.objective.forward(self.params, z, StepContext()).loss)
        if loss < self.plateau["best"] * (1.0 - min_gain):
            self.plateau = {"best": loss, "waited": 0}
            self.lowest = {name: value.clone() for name, value in self.params.items()}
        else:
            self.plateau = {**self.plateau, "waited": self.plateau["waited"] + 1}

    def go_back(self) -> None:
        """Take the parameters back to where the watched loss was lowest."""
        for name, value in self.lowest.items():
            self.params[name].copy_(value)

    def maybe_resample(self, residual: Float[Tensor, "n d_in"], z: Float[Tensor, "n d_in"]) -> None:
        """Restart dead features at batch ends that cross a multiple of ``dead_after_tokens``.

        Where AuxK is on, only those whose pre-activation is nowhere positive: AuxK does not move them, and it
        is better left to move the others. Nothing is restarted during the fall of the learning rate, where it
        could no longer learn.
        """
        period = self.config.dead_after_tokens
        crossed = self.tokens_seen // period > (self.tokens_seen - z.shape[0]) // period
        if not self.config.resample or not crossed or self._rate_falls:
            return
        dead = self.dead().nonzero().squeeze(1)
        if isinstance(self.config, AuxiliaryConfig) and self.config.aux_coefficient > 0 and dead.numel():
            weights = self.params
            pre = torch.addmm(weights["b_enc"][dead], z - weights["b_dec"], weights["encoder"][dead].T)
            dead = dead[pre.amax(0) <= 0]
        if dead.numel():
            self._restart(self.params, dead, -residual)

    def _restart(self, weights: Params, dead: Tensor, error: Float[Tensor, "n d_in"]) -> None:
        """Point dead features at badly reconstructed tokens (Bricken et al. 2023).

        The encoder starts small, so that nothing is disturbed, unless features compete for a place among the
        k largest or above a threshold: a small one would never get there.
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
        self.start[dead] = direction
        for name, value in self.params.items():
            if name == "b_dec":
                continue
            if value.ndim == 1:
                weights[name][dead] = self.objective.restart_value(name)
            for moment in self.moments[name]:
                moment[dead] = 0.0
        self.tokens_since_fired[dead] = 0


def _decoder_rows(params: Params) -> Float[Tensor, "d_sae d_in"]:
    """Rows of the decoder; those of the encoder where the two are tied."""
    return params["decoder"] if "decoder" in params else params["encoder"]


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


def stream_seed(seed: int, site: str, config: SaeConfig) -> int:
    """Seed of one SAE's random stream, the same whatever else is trained."""
    text = f"{seed}|{site}|{config.model_dump_json(exclude={'seed'})}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
