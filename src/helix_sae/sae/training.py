"""Training of many sparse autoencoders in one pass over the activations."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.errors import ConfigurationError, DataError
from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.config import SaeConfig
from helix_sae.sae.learner import Learner, Precision, SaeKey
from helix_sae.sae.metrics import SaeEvaluation, as_batch, evaluate_sae
from helix_sae.sae.objective import StepResult
from helix_sae.sae.orders import SHARED, Batches, Orders, SiteBatch
from helix_sae.sae.resume import Scratch, drop_state, load_state, save_state, state_path
from helix_sae.sae.scaling import InputScaling, estimate_scaling
from helix_sae.sae.stack import Stack, stacks_of
from helix_sae.sae.starts import start_measures
from helix_sae.sae.workers import SERIAL, Workers, borrowed_threads

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, Mapping[SaeKey, float]], None]

HISTORY_COLUMNS = (
    "site",
    "config",
    "seed",
    "step",
    "tokens",
    "loss",
    "mse",
    "l1",
    "explained_variance",
    "l0",
    "dead_share",
    "lr",
)

_SAMPLE_TOKENS = 32_768
"""Most tokens by which thresholds are set."""

_BATCHES_AHEAD = 3
"""Batches on their way to a GPU while it works."""


@dataclass(frozen=True)
class TrainingResult:
    """What a run of :func:`train_saes` gives.

    Attributes
    ----------
    saes : dict of SaeKey to SparseAutoencoder
        One for each site, configuration and seed; they take raw activations.
    scalings : dict of str to InputScaling
        The centring and scaling of each site, already folded into the SAEs.
    history : DataFrame
        ``site``, ``config``, ``seed``, ``step``, ``tokens``, ``loss``, ``mse`` (in scaled units), ``l1``,
        ``explained_variance`` (of that training batch), ``l0``, ``dead_share`` (by the training clock),
        ``lr``.
    evaluations : dict of SaeKey to SaeEvaluation
        Held-out measures; empty without held-out batches.
    starts : dict of SaeKey to Tensor (d_sae, d_in)
        Where the direction of each feature began (:attr:`Learner.start`).
    steps_done : int
        Steps trained.
    """

    saes: dict[SaeKey, SparseAutoencoder]
    scalings: dict[str, InputScaling]
    history: pd.DataFrame
    evaluations: dict[SaeKey, SaeEvaluation]
    starts: dict[SaeKey, Float[Tensor, "d_sae d_in"]]
    steps_done: int

    @property
    def metrics(self) -> pd.DataFrame:
        """Held-out measures, a row an SAE: ``site``, ``config``, ``seed``, and two sets of columns.

        The summary of :class:`SaeEvaluation`, and what is set beside it
        (:func:`~helix_sae.sae.starts.start_measures`).
        """
        beside = start_measures(self.saes, self.starts, self.evaluations)
        rows = [
            {**key._asdict(), **evaluation.summary, **beside[key]}
            for key, evaluation in self.evaluations.items()
        ]
        return pd.DataFrame(rows) if rows else pd.DataFrame({"site": [], "config": [], "seed": []})

    def by_site(self, config: str | None = None) -> dict[str, SparseAutoencoder]:
        """The first SAE of one configuration, by site.

        Parameters
        ----------
        config : str, optional
            Name of the configuration; may be left out when there is only one.

        Raises
        ------
        ConfigurationError
            If it is left out and there are several, or there is none of that name.
        """
        return {site: saes[0] for site, saes in self.seeds(config).items()}

    def seeds(self, config: str | None = None) -> dict[str, tuple[SparseAutoencoder, ...]]:
        """The SAEs of all seeds of one configuration, by site, in the order of the seeds; parameters as :meth:`by_site`."""
        names = sorted({key.config for key in self.saes})
        if config is None and len(names) == 1:
            config = names[0]
        if config not in names:
            raise ConfigurationError(
                f"Name one of the trained configurations, {', '.join(names)}; not {config!r}."
            )
        chosen = {key: sae for key, sae in self.saes.items() if key.config == config}
        return {site: tuple(sae for key, sae in chosen.items() if key.site == site) for site in self.scalings}


@dataclass(frozen=True)
class EarlyStopping:
    """Stop an SAE when its held-out loss no longer falls, and take it back to where that was lowest.

    The loss is the one that is trained, the full price of activity included: a training that only makes
    codes sparser goes on. It is measured once the price counts in full, the features that are too many have
    been let go and the learning rate falls: before, a loss that stands still says nothing of the end.

    Attributes
    ----------
    every_fraction : float
        Share of the steps between two measurements.
    patience : int
        Measurements without a gain after which the SAE stops.
    min_gain : float
        Share of the lowest loss so far by which it has to fall for a gain.
    n_tokens : int
        At most so many held-out tokens are measured on.
    """

    every_fraction: float = 0.1
    patience: int = 2
    min_gain: float = 0.0
    n_tokens: int = 4096


def train_saes(
    batches: Batches | Callable[[int], Batches],
    configs: Mapping[str, SaeConfig],
    *,
    n_seeds: int = 1,
    sites: Sequence[str] | None = None,
    n_steps: int | None = None,
    seed: int = 0,
    holdout: Iterable[SiteBatch] | None = None,
    calibration_tokens: int = 65_536,
    log_every: int = 50,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
    compiled: bool = False,
    progress: Progress | None = None,
    scratch: Scratch | None = None,
    early_stopping: EarlyStopping | None = None,
) -> TrainingResult:
    """Train an SAE for every site, configuration and seed in one pass over the activations.

    Each SAE has its own optimiser, schedule and random stream: it comes out the same as when it is trained
    alone (to the bit on a CPU, where widths are multiples of 16), and on any number of threads.

    Parameters
    ----------
    batches : iterable of mapping of site to (batch, d_in) array, or function of a seed that gives one
        Shuffled raw activations; batches may differ in length. A batch must not be overwritten by a later
        one. Given an iterable, all SAEs see the same batches. Given a function, each seed sees the order that
        the function gives it: two seeds of a configuration then differ in their start *and* in the order of
        their data, which is what the stability of a feature asks for.
    configs : mapping of str to SaeConfig
        Configurations by a name of your choice, each trained at every site.
    n_seeds : int
        How many times each is trained: with ``seed + config.seed``, and so many more that follow it. They
        stand in :meth:`TrainingResult.seeds`.
    sites : sequence of str, optional
        Which sites of the batches to train on; default all.
    n_steps : int, optional
        Batches to train on; the schedules are laid out over it. Default the length of the batches.
    seed : int
        Seed of every random stream.
    holdout : iterable of mapping of site to (batch, d_in) array, optional
        Batches to measure the finished SAEs on.
    calibration_tokens : int
        Tokens at the start of the batches from which each site's mean and scale, and thresholds, are
        estimated; they are trained on too.
    log_every : int
        Steps between rows of the history; the first and last step are always there.
    device : str or torch.device
        Where to train.
    precision : {"float32", "bfloat16"}
        Of the matrix products of the steps (autocast); worth it on a GPU. Parameters, sums and optimiser stay
        float32.
    compiled : bool
        Whether steps go through ``torch.compile``, which on a GPU is worth it for long trainings.
    progress : callable, optional
        Called as ``progress(step, n_steps, {key: explained variance})`` with each row of the history.
    scratch : Scratch, optional
        Keep the state of the run there; a run that was killed, started again, goes on to the same result.
    early_stopping : EarlyStopping, optional
        None trains all steps; needs ``holdout``.

    Raises
    ------
    ConfigurationError
        If a configuration does not fit the activations, or the number of steps is not known.
    DataError
        If there are no activations, a site is missing or constant, or a value is not finite.
    StoreError
        If a state in the scratch area is damaged.

    Examples
    --------
    >>> import numpy as np
    >>> from helix_sae.sae import ArrayBatches, TopKConfig, train_saes
    >>> x = np.random.default_rng(0).normal(size=(512, 8)).astype("float32")
    >>> result = train_saes(ArrayBatches({"layers.0": x}, 128, seed=0), {"k4": TopKConfig(k=4)})
    >>> result.by_site()["layers.0"].d_sae
    32

    Three seeds, each with its own order of the same rows:

    >>> def shuffled(seed):
    ...     return ArrayBatches({"layers.0": x}, 128, seed=seed)
    >>> result = train_saes(shuffled, {"k4": TopKConfig(k=4)}, n_seeds=3)
    >>> [len(saes) for saes in result.seeds().values()]
    [3]
    """
    if not configs:
        raise ConfigurationError("No SAE configuration was given; name at least one.")
    held_out = None if holdout is None else list(holdout)
    if early_stopping is not None and not held_out:
        raise ConfigurationError("Early stopping needs held-out batches; give some, or turn it off.")
    if n_seeds < 1:
        raise ConfigurationError(f"n_seeds is {n_seeds}; at least one seed is trained.")
    orders = Orders(batches, seed)
    steps = _number_of_steps(orders.first, n_steps)
    samples = orders.sample(sites, calibration_tokens)
    scalings = {site: estimate_scaling(sample, site) for site, sample in samples.items()}
    learners = [
        Learner(
            SaeKey(site, name, number),
            config.resolve(scaling.mean.numel(), f"site {site}"),
            scaling.to(device),
            steps,
            seed,
            precision,
            scaling.apply(samples[site]) if config.data_start > 0 else None,
            compiled,
        )
        for site, scaling in scalings.items()
        for name, config in configs.items()
        for number in range(n_seeds)
    ]
    path = None
    if scratch is not None:
        settings = {
            "sites": list(scalings),
            "n_steps": steps,
            "seed": seed,
            "n_seeds": n_seeds,
            "calibration_tokens": calibration_tokens,
            "log_every": log_every,
            "precision": precision,
            "compiled": compiled,
            "early_stopping": None if early_stopping is None else asdict(early_stopping),
        }
        path = state_path(scratch, configs, settings)
    run = _Run(learners, orders, steps, log_every, progress, held_out, early_stopping)
    with borrowed_threads() as n_threads:
        on_cpu = torch.device(device).type == "cpu"
        run.train(n_threads if on_cpu else 1, path, scratch.every_steps if scratch is not None else 0)
        saes = run.export()
        evaluations = {} if held_out is None else _evaluate(saes, held_out)
    if path is not None:
        drop_state(path)
    history = pd.DataFrame(run.rows, columns=pd.Index(HISTORY_COLUMNS))
    starts = {learner.key: learner.start.cpu() for learner in learners}
    return TrainingResult(saes, scalings, history, evaluations, starts, run.done)


class _Run:
    """The loop over batches, for all SAEs."""

    def __init__(
        self,
        learners: list[Learner],
        orders: Orders,
        n_steps: int,
        log_every: int,
        progress: Progress | None,
        holdout: list[SiteBatch] | None,
        early_stopping: EarlyStopping | None,
    ) -> None:
        self.learners = learners
        self.orders = orders
        self.n_steps = n_steps
        self.log_every = log_every
        self.progress = progress
        self.holdout = holdout
        self.early_stopping = early_stopping
        self.scalings = {learner.key.site: learner.scaling for learner in learners}
        self.running = list(learners)
        self.rows: list[dict[str, Any]] = []
        self.done = 0
        self.watched: dict[str, Tensor] = {}

    def train(self, n_threads: int, state: Path | None, save_every: int) -> None:
        """Go through the batches; from where ``state`` left off, if it is there."""
        skip = 0
        if state is not None and state.exists():
            skip, self.rows = load_state(state, self.learners)
            self.done = skip
            self._drop_stopped()
            logger.info("Going on after %d of %d steps, from %s.", skip, self.n_steps, state)
        # Several stacks go side by side, each in one thread; a single one shares out the work of its steps.
        self.n_threads = n_threads
        outer, inner = Workers(n_threads), Workers(n_threads)
        self._stack()
        try:
            for position, batch in zip(range(self.n_steps), self._placed(), strict=False):
                if position >= skip:
                    alone = len(self.stacks) < n_threads
                    self._step(batch, *((SERIAL, inner) if alone else (outer, SERIAL)))
                    if state is not None and self.done % save_every == 0 and self.done < self.n_steps:
                        save_state(state, self.learners, self.rows, self.done)
                if not self.running:
                    break
        finally:
            outer.close()
            inner.close()
        if self.done < self.n_steps and self.running:
            logger.warning(
                "The activations ended after %d of the %d steps that were asked for, before the learning rate"
                " had come down. Lower n_steps or go through the activations more often.",
                self.done,
                self.n_steps,
            )

    def export(self) -> dict[SaeKey, SparseAutoencoder]:
        """Give the SAEs for raw activations."""
        return {learner.key: learner.export(self._sample(learner.key.site)) for learner in self.learners}

    def _sample(self, site: str) -> Float[Tensor, "n d_in"]:
        """Scaled activations to set thresholds by."""
        return self.scalings[site].to("cpu").apply(self.orders.samples[site][:_SAMPLE_TOKENS])

    def _stack(self) -> None:
        """Put those that still run into stacks, one a thread."""
        self.stacks = stacks_of(self.running, self.n_threads)

    def _placed(self) -> Iterator[dict[int, dict[str, Tensor]]]:
        """The batches of each order, checked, where the SAEs are; for a GPU the next ones are brought there while it works."""
        place = partial(_place, scalings=self.scalings)
        stream = self.orders.batches({learner.order for learner in self.learners})
        if all(scaling.mean.device.type == "cpu" for scaling in self.scalings.values()):
            yield from map(place, stream)
            return
        with ThreadPoolExecutor(1) as pool:
            ahead = deque(pool.submit(lambda: place(next(stream))) for _ in range(_BATCHES_AHEAD))
            try:
                while True:
                    batch = ahead.popleft().result()
                    ahead.append(pool.submit(lambda: place(next(stream))))
                    yield batch
            except StopIteration:
                return
            finally:
                for future in ahead:
                    future.cancel()

    def _step(self, batch: dict[int, dict[str, Tensor]], outer: Workers, inner: Workers) -> None:
        pruned = [learner for learner in self.running if learner.prunes_now]
        for learner in pruned:
            learner.prune(self._sample(learner.key.site))
        if pruned:
            self._stack()
        last = self.done + 1 == self.n_steps
        record = self.done % self.log_every == 0 or last

        def learn(stack: Stack) -> list[dict[str, Any]]:
            own = [batch[SHARED if SHARED in batch else one.order][one.key.site] for one in stack.learners]
            return stack.step(stack.scaled(own), inner, _history_row if record else None)

        rows = [row for part in outer.map(learn, self.stacks) for row in part]
        self.rows.extend(rows)
        self.done += 1
        if rows and self.progress is not None:
            latest = {
                SaeKey(row["site"], row["config"], row["seed"]): row["explained_variance"] for row in rows
            }
            self.progress(self.done, self.n_steps, latest)
        rule = self.early_stopping
        if (
            rule is not None
            and self.done % max(1, round(rule.every_fraction * self.n_steps)) == 0
            and not last
        ):
            self._look_for_plateaus(rule)

    def _look_for_plateaus(self, rule: EarlyStopping) -> None:
        watched = [learner for learner in self.running if learner.settled]
        for learner in watched:
            learner.watch(self._held_out(learner.key.site, rule.n_tokens), rule.min_gain)
        self._drop_stopped()
        stopped = [learner for learner in watched if learner not in self.running]
        for learner in stopped:
            learner.go_back()
            logger.info(
                "%s of seed %d at %s stops after %d of %d steps: its held-out loss no longer falls.",
                learner.key.config,
                learner.key.seed,
                learner.key.site,
                learner.steps_done,
                self.n_steps,
            )
        if stopped:
            self._stack()

    def _held_out(self, site: str, n_tokens: int) -> Float[Tensor, "n d_in"]:
        """Scaled held-out activations to watch the loss on."""
        if site not in self.watched:
            parts: list[Tensor] = []
            for batch in self.holdout or []:
                parts.append(torch.as_tensor(batch[site]).float())
                if sum(map(len, parts)) >= n_tokens:
                    break
            scaling = self.scalings[site]
            rows = torch.cat(parts)[:n_tokens].to(scaling.mean.device)
            self.watched[site] = scaling.apply(rows)
        return self.watched[site]

    def _drop_stopped(self) -> None:
        if self.early_stopping is not None:
            patience = self.early_stopping.patience
            self.running = [learner for learner in self.learners if learner.plateau["waited"] < patience]


def _place(
    batches: Mapping[int, SiteBatch], scalings: Mapping[str, InputScaling]
) -> dict[int, dict[str, Tensor]]:
    """The wanted sites of the batches, checked, as tensors where their scalings are."""
    placed: dict[int, dict[str, Tensor]] = {}
    for order, batch in batches.items():
        placed[order] = {}
        for site, scaling in scalings.items():
            if site not in batch:
                raise DataError(
                    f"A batch lacks site {site}; every batch must hold all of {sorted(scalings)}."
                )
            values = as_batch(batch[site], scaling.mean.numel(), f"site {site}")
            device = scaling.mean.device
            # From pinned memory a copy to a GPU is not waited for.
            at_place = values if device.type == "cpu" else values.pin_memory().to(device, non_blocking=True)
            placed[order][site] = at_place
    return placed


def _number_of_steps(batches: Iterable[SiteBatch], n_steps: int | None) -> int:
    available = len(batches) if isinstance(batches, Sized) else None
    wanted = n_steps if n_steps is not None else available
    if wanted is None:
        raise ConfigurationError("The batches have no length, so n_steps must say how many to train on.")
    if wanted < 1:
        raise DataError("There is no batch to train on: no activations were given, or n_steps is below 1.")
    if available is not None and available < wanted:
        raise ConfigurationError(
            f"{wanted} steps were asked for but there are only {available} batches; lower n_steps, make the"
            " batches smaller, or go through the activations more often (epochs)."
        )
    return wanted


def _history_row(learner: Learner, result: StepResult, z: Tensor) -> dict[str, Any]:
    """What a step that was just done measured."""
    squared_error = float(result.squared_error)
    variance = float((z - z.mean(0)).square().sum())
    return {
        **learner.key._asdict(),
        "step": learner.steps_done,
        "tokens": learner.tokens_seen,
        "loss": float(result.loss),
        "mse": squared_error / z.numel(),
        "l1": float(result.l1),
        "explained_variance": 1.0 - squared_error / variance if variance > 0 else float("nan"),
        "l0": float(result.fired.sum()) / z.shape[0],
        "dead_share": float(learner.dead().float().mean()),
        "lr": learner.rate(learner.steps_done - 1),
    }


def _evaluate(
    saes: Mapping[SaeKey, SparseAutoencoder], holdout: list[SiteBatch]
) -> dict[SaeKey, SaeEvaluation]:
    return {
        key: evaluate_sae(sae, (torch.as_tensor(batch[key.site]) for batch in holdout), f"site {key.site}")
        for key, sae in saes.items()
    }
