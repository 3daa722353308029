"""Training of many sparse autoencoders in one pass over the activations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.errors import ConfigurationError, DataError
from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.config import SaeConfig
from helix_sae.sae.learner import Learner, SaeKey
from helix_sae.sae.metrics import SaeEvaluation, check_batch, evaluate_sae
from helix_sae.sae.objective import StepResult
from helix_sae.sae.scaling import InputScaling, estimate_scaling

logger = logging.getLogger(__name__)

SiteBatch = Mapping[str, Float[Tensor, "batch d_in"]]
Progress = Callable[[int, int, Mapping[SaeKey, float]], None]

HISTORY_COLUMNS = (
    "site", "config", "step", "tokens", "loss", "mse", "l1", "explained_variance", "l0", "dead_share", "lr",
)  # fmt: skip


@dataclass(frozen=True)
class TrainingResult:
    """What a run of :func:`train_saes` gives.

    Attributes
    ----------
    saes : dict of SaeKey to SparseAutoencoder
        One for each (site, configuration name); they take raw activations.
    scalings : dict of str to InputScaling
        The centring and scaling of each site, already folded into the SAEs.
    history : DataFrame
        ``site``, ``config``, ``step``, ``tokens``, ``loss``, ``mse`` (in scaled units), ``l1``, ``explained_variance``
        (of that training batch), ``l0``, ``dead_share`` (by the training clock), ``lr``.
    evaluations : dict of SaeKey to SaeEvaluation
        Held-out measures; empty without held-out batches.
    steps_done : int
        Steps trained.
    """

    saes: dict[SaeKey, SparseAutoencoder]
    scalings: dict[str, InputScaling]
    history: pd.DataFrame
    evaluations: dict[SaeKey, SaeEvaluation]
    steps_done: int

    @property
    def metrics(self) -> pd.DataFrame:
        """Held-out measures, one row an SAE: ``site``, ``config`` and the summary of :class:`SaeEvaluation`."""
        rows = [{**key._asdict(), **evaluation.summary} for key, evaluation in self.evaluations.items()]
        return pd.DataFrame(rows, columns=None if rows else ["site", "config"])

    def by_site(self, config: str | None = None) -> dict[str, SparseAutoencoder]:
        """The SAEs of one configuration, by site.

        Parameters
        ----------
        config : str, optional
            Name of the configuration; may be left out when there is only one.

        Raises
        ------
        ConfigurationError
            If it is left out and there are several, or there is none of that name.
        """
        names = sorted({key.config for key in self.saes})
        if config is None and len(names) == 1:
            config = names[0]
        if config not in names:
            raise ConfigurationError(
                f"Name one of the trained configurations, {', '.join(names)}; not {config!r}."
            )
        return {key.site: sae for key, sae in self.saes.items() if key.config == config}


def train_saes(
    batches: Iterable[SiteBatch],
    configs: Mapping[str, SaeConfig],
    *,
    sites: Sequence[str] | None = None,
    n_steps: int | None = None,
    seed: int = 0,
    holdout: Iterable[SiteBatch] | None = None,
    calibration_tokens: int = 65_536,
    log_every: int = 50,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> TrainingResult:
    """Train an SAE for every site and configuration in one pass over the activations.

    Each SAE has its own optimiser, schedule and random stream: it comes out the same as when it is trained alone.

    Parameters
    ----------
    batches : iterable of mapping of site to (batch, d_in) array
        Shuffled raw activations; batches may differ in length.
    configs : mapping of str to SaeConfig
        Configurations by a name of your choice, each trained at every site.
    sites : sequence of str, optional
        Which sites of the batches to train on; default all.
    n_steps : int, optional
        Batches to train on; the schedules are laid out over it. Default ``len(batches)``.
    seed : int
        Seed of every random stream.
    holdout : iterable of mapping of site to (batch, d_in) array, optional
        Batches to measure the finished SAEs on.
    calibration_tokens : int
        Tokens at the start of ``batches`` from which each site's mean and scale are estimated; they are trained on too.
    log_every : int
        Steps between rows of the history; the first and last step are always there.
    device : str or torch.device
        Where to train.
    progress : callable, optional
        Called as ``progress(step, n_steps, {key: explained variance})`` with each row of the history.

    Raises
    ------
    ConfigurationError
        If a configuration does not fit the activations, or the number of steps is not known.
    DataError
        If there are no activations, a site is missing or constant, or a value is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from helix_sae.sae import ArrayBatches, TopKConfig, train_saes
    >>> x = np.random.default_rng(0).normal(size=(512, 8)).astype("float32")
    >>> result = train_saes(ArrayBatches({"layers.0": x}, 128, seed=0), {"k4": TopKConfig(k=4)})
    >>> result.by_site()["layers.0"].d_sae
    32
    """
    if not configs:
        raise ConfigurationError("No SAE configuration was given; name at least one.")
    steps = _number_of_steps(batches, n_steps)
    stream = iter(batches)
    head = _take_head(stream, sites, calibration_tokens)
    scalings = {site: estimate_scaling(torch.cat([b[site] for b in head]), site) for site in head[0]}
    place = torch.device(device)
    scalings = {site: InputScaling(s.mean.to(place), s.scale) for site, s in scalings.items()}
    learners = [
        Learner(SaeKey(site, name), config.resolve(s.mean.numel(), f"site {site}"), s, steps, seed, place)
        for site, s in scalings.items()
        for name, config in configs.items()
    ]
    rest = (
        _read(batch, list(scalings), {site: s.mean.numel() for site, s in scalings.items()})
        for batch in stream
    )
    history = _run(learners, chain(head, rest), steps, log_every, progress)
    saes = {learner.key: learner.export() for learner in learners}
    evaluations = _evaluate(saes, list(holdout)) if holdout is not None else {}
    folded = {site: InputScaling(s.mean.cpu(), s.scale) for site, s in scalings.items()}
    return TrainingResult(saes, folded, history, evaluations, learners[0].steps_done)


def _number_of_steps(batches: Iterable[SiteBatch], n_steps: int | None) -> int:
    available = len(batches) if isinstance(batches, Sized) else None
    wanted = n_steps if n_steps is not None else available
    if wanted is None:
        raise ConfigurationError("The batches have no length, so n_steps must say how many to train on.")
    if wanted < 1:
        raise DataError("There is no batch to train on: no activations were given, or n_steps is below 1.")
    if available is not None and available < wanted:
        raise ConfigurationError(
            f"{wanted} steps were asked for but there are only {available} batches; lower n_steps, make the batches "
            "smaller, or go through the activations more often (epochs)."
        )
    return wanted


def _take_head(
    stream: Iterator[SiteBatch], sites: Sequence[str] | None, n_tokens: int
) -> list[dict[str, Float[Tensor, "batch d_in"]]]:
    """The first batches, enough of them for ``n_tokens`` tokens, checked."""
    head: list[dict[str, Tensor]] = []
    widths: dict[str, int] = {}
    taken = 0
    for batch in stream:
        if not head:
            wanted = list(batch) if sites is None else list(sites)
            missing = [site for site in wanted if site not in batch]
            if missing or not wanted:
                raise DataError(
                    f"The activations have the sites {sorted(batch)}; {missing or 'none'} were asked for."
                )
            widths = {site: int(np.shape(batch[site])[-1]) for site in wanted}
        head.append(_read(batch, list(widths), widths))
        taken += next(iter(head[-1].values())).shape[0]
        if taken >= n_tokens:
            break
    if taken == 0:
        raise DataError("There is no batch to train on: no activations were given.")
    return head


def _read(batch: SiteBatch, sites: list[str], widths: Mapping[str, int]) -> dict[str, Tensor]:
    try:
        return {site: check_batch(batch[site], widths[site], f"site {site}") for site in sites}
    except KeyError as error:
        raise DataError(f"A batch lacks site {error}; every batch must hold all of {sites}.") from error


def _run(
    learners: list[Learner],
    batches: Iterable[Mapping[str, Tensor]],
    n_steps: int,
    log_every: int,
    progress: Progress | None,
) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    done = 0
    for batch in batches:
        scaled = {learner.key.site: learner.scaling for learner in learners}
        z = {site: s.apply(batch[site].to(s.mean.device)) for site, s in scaled.items()}
        last = done + 1 == n_steps
        record = done % log_every == 0 or last
        latest: dict[SaeKey, float] = {}
        for learner in learners:
            rate = learner.rate()
            result = learner.step(z[learner.key.site])
            if record:
                rows.append(_history_row(learner, result, z[learner.key.site], rate))
                latest[learner.key] = rows[-1]["explained_variance"]
        done += 1
        if record and progress is not None:
            progress(done, n_steps, latest)
        if last:
            break
    if done < n_steps:
        logger.warning(
            "The activations ended after %d of the %d steps that were asked for: the learning rate has not come down "
            "to its end. Lower n_steps or go through the activations more often.",
            done,
            n_steps,
        )
    return pd.DataFrame(rows, columns=list(HISTORY_COLUMNS))


def _history_row(learner: Learner, result: StepResult, z: Tensor, rate: float) -> dict[str, Any]:
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
        "lr": rate,
    }


def _evaluate(
    saes: Mapping[SaeKey, SparseAutoencoder], holdout: list[SiteBatch]
) -> dict[SaeKey, SaeEvaluation]:
    return {
        key: evaluate_sae(sae, (torch.as_tensor(batch[key.site]) for batch in holdout), f"site {key.site}")
        for key, sae in saes.items()
    }
