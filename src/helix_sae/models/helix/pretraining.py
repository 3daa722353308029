"""Trains a small Helix-mRNA from nothing: next token, and phenotypes from the pooled embedding, together.

Trained on the next token alone, a network of this size carries no more of a sequence's ribosome load in its
embedding than random weights do; the phenotype head is what puts a mechanism inside for an autoencoder to
find.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from helix_sae.errors import DataError
from helix_sae.models.batching import length_batches
from helix_sae.models.helix.architecture import Architecture, build_network
from helix_sae.models.helix.heads import Heads
from helix_sae.mrna.tokens import TokenizedSequence, pad_batch

LOGGER = logging.getLogger(__name__)

_IGNORED = -100


class PretrainingOptions(BaseModel):
    """How ``helix_mini`` is trained.

    Attributes
    ----------
    steps : int
        Optimiser steps.
    token_budget : int
        Tokens a batch.
    learning_rate : float
        After a linear warm-up of ``warmup_steps``; constant, then falling linearly to zero from
        ``decay_from`` of the steps on.
    next_token_weight : float
        Weight of the next-token cross-entropy (nats a token) beside the phenotypes' mean squared error (in
        units of their variance).
    track_weight : float
        Weight of the tracks' mean squared error (in units of their variance).
    warmup_steps : int
        Steps over which the rate rises from zero.
    decay_from : float
        Share of the steps after which it falls.
    weight_decay : float
        Of AdamW.
    gradient_clip : float
        Largest L2 norm of the gradient.
    log_every : int
        Steps between rows of the history.
    seed : int
        Of the initial weights and the order of the batches.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(7500, ge=1)
    token_budget: int = Field(4096, ge=64)
    learning_rate: float = Field(2e-3, gt=0, le=1e-1)
    warmup_steps: int = Field(100, ge=0)
    decay_from: float = Field(0.64, ge=0, le=1)
    weight_decay: float = Field(0.01, ge=0)
    next_token_weight: float = Field(0.2, ge=0)
    track_weight: float = Field(1.0, ge=0)
    gradient_clip: float = Field(1.0, gt=0)
    log_every: int = Field(100, ge=1)
    seed: int = Field(0, ge=0)


class Corpus(NamedTuple):
    """Training data.

    Attributes
    ----------
    tokens : sequence of TokenizedSequence
    phenotypes : float (n, phenotypes)
        NaN where unknown.
    names : tuple of str
        Of the phenotypes.
    predicts_next : bool (n,)
        Records that the next token is learned from. Random reporter libraries have nothing to predict, and
        their cross-entropy would only drown the phenotypes' gradient.
    tracks : sequence of float (n_tokens, channels), optional
        Targets at every token, NaN where there is none: an auxiliary task whose read-out is not kept.
    """

    tokens: Sequence[TokenizedSequence]
    phenotypes: Float[np.ndarray, "n phenotypes"]
    names: tuple[str, ...]
    predicts_next: Bool[np.ndarray, " n"]
    tracks: Sequence[Float[np.ndarray, "n_tokens channels"]] | None = None


class Pretrained(NamedTuple):
    """A trained network, its heads, and the history of its training (one row every ``log_every`` steps)."""

    network: nn.Module
    heads: Heads
    history: pd.DataFrame


def pretrain(
    corpus: Corpus,
    architecture: Architecture,
    options: PretrainingOptions,
    start: Pretrained | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Pretrained:
    """Train a network and its two heads.

    Parameters
    ----------
    corpus : Corpus
    architecture : Architecture
    options : PretrainingOptions
    start : Pretrained, optional
        Go on from there (it is trained in place) with a fresh optimiser; random weights when absent.
    on_step : callable, optional
        Called with (steps done, steps in all) after each step.

    Raises
    ------
    DataError
        If a phenotype has no value, or only one.
    """
    _check(corpus)
    network, heads = (
        _fresh(corpus, architecture, options.seed) if start is None else (start.network, start.heads)
    )
    network.train().requires_grad_(True)
    heads.train().requires_grad_(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed + 2)
        track_head = nn.Linear(
            architecture.hidden_size, 0 if corpus.tracks is None else corpus.tracks[0].shape[1]
        )
    parameters = [
        *network.parameters(),
        *heads.next_token.parameters(),
        *heads.phenotype.parameters(),
        *track_head.parameters(),
    ]
    optimiser = torch.optim.AdamW(
        _decay_groups(parameters, options.weight_decay), lr=options.learning_rate, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, options))
    rows: list[dict[str, float]] = []
    running = _Running(corpus.names)
    started = time.perf_counter()
    for step, batch in zip(range(1, options.steps + 1), _endless_batches(corpus, options), strict=False):
        losses = _losses(network, heads, track_head, batch)
        loss = (
            losses.phenotype
            + options.next_token_weight * losses.next_token
            + options.track_weight * losses.track
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, options.gradient_clip)
        optimiser.step()
        schedule.step()
        running.add(losses)
        if step % options.log_every == 0 or step == options.steps:
            rows.append({"step": step, "learning_rate": schedule.get_last_lr()[0], **running.summary()})
            LOGGER.info("pretraining %s (%.0f s)", _words(rows[-1]), time.perf_counter() - started)
            running = _Running(corpus.names)
        if on_step is not None:
            on_step(step, options.steps)
    return Pretrained(network.eval(), heads.eval(), pd.DataFrame(rows))


def _fresh(corpus: Corpus, architecture: Architecture, seed: int) -> tuple[nn.Module, Heads]:
    """Random weights, and heads that know the phenotypes' scale."""
    network = build_network(architecture, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        heads = Heads(architecture.hidden_size, network.config.vocab_size, corpus.names)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    heads.phenotype_mean.copy_(torch.from_numpy(np.nanmean(corpus.phenotypes, axis=0)))
    heads.phenotype_scale.copy_(torch.from_numpy(np.nanstd(corpus.phenotypes, axis=0)))
    return network, heads


class _Batch(NamedTuple):
    ids: Int[Tensor, "batch time"]
    is_nucleotide: Bool[Tensor, "batch time"]
    is_target: Bool[Tensor, "batch time"]
    phenotypes: Float[Tensor, "batch phenotypes"]
    tracks: Float[Tensor, "batch time channels"] | None


class _Losses(NamedTuple):
    phenotype: Float[Tensor, ""]
    next_token: Float[Tensor, ""]
    has_next_token: bool
    track: Float[Tensor, ""]
    squared_error: Float[np.ndarray, " phenotypes"]
    known: Float[np.ndarray, " phenotypes"]


class _Running:
    """Means of the losses since the last line of the history."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.next_token: list[float] = []
        self.track: list[float] = []
        self.squared = np.zeros(len(names))
        self.known = np.zeros(len(names))

    def add(self, losses: _Losses) -> None:
        if losses.has_next_token:
            self.next_token.append(float(losses.next_token.detach()))
        self.track.append(float(losses.track.detach()))
        self.squared += losses.squared_error
        self.known += losses.known

    def summary(self) -> dict[str, float]:
        shares = self.squared / np.maximum(self.known, 1)
        unexplained = {f"unexplained_{name}": float(s) for name, s in zip(self.names, shares, strict=True)}
        nats = float(np.mean(self.next_token)) if self.next_token else math.nan
        return {"next_token_nats": nats, "unexplained_tracks": float(np.mean(self.track)), **unexplained}


def _losses(network: nn.Module, heads: Heads, track_head: nn.Module, batch: _Batch) -> _Losses:
    hidden = network(input_ids=batch.ids)[0]
    targets = batch.ids[:, 1:].masked_fill(~batch.is_target[:, 1:], _IGNORED)
    next_token = hidden.new_zeros(())
    if bool(batch.is_target.any()):
        next_token = nn.functional.cross_entropy(
            heads.logits(hidden[:, :-1]).flatten(0, 1), targets.flatten(), ignore_index=_IGNORED
        )
    weights = batch.is_nucleotide.unsqueeze(-1).to(hidden.dtype)
    pooled = (hidden * weights).sum(1) / weights.sum(1)
    target = (batch.phenotypes - heads.phenotype_mean) / heads.phenotype_scale
    known = ~torch.isnan(target)
    error = (heads.standardised(pooled) - target.nan_to_num()).square() * known
    phenotype = error.sum() / known.sum().clamp(min=1)
    track = (
        _masked_mse(track_head(hidden), batch.tracks) if batch.tracks is not None else hidden.new_zeros(())
    )
    return _Losses(
        phenotype,
        next_token,
        bool(batch.is_target.any()),
        track,
        error.detach().sum(0).numpy(),
        known.sum(0).numpy(),
    )


def _masked_mse(
    predicted: Float[Tensor, "*n channels"], target: Float[Tensor, "*n channels"]
) -> Float[Tensor, ""]:
    known = ~torch.isnan(target)
    return ((predicted - target.nan_to_num()).square() * known).sum() / known.sum().clamp(min=1)


def _endless_batches(corpus: Corpus, options: PretrainingOptions) -> Iterator[_Batch]:
    rng = np.random.default_rng(options.seed)
    lengths = np.array([t.ids.size for t in corpus.tokens])
    phenotypes = torch.from_numpy(corpus.phenotypes.astype(np.float32))
    tracks = None if corpus.tracks is None else _standardised(corpus.tracks)
    while True:
        for index in length_batches(lengths, options.token_budget, rng=rng):
            ids, is_nucleotide = pad_batch([corpus.tokens[i] for i in index])
            is_target = (np.arange(ids.shape[1]) < lengths[index, None]) & corpus.predicts_next[index, None]
            yield _Batch(
                torch.from_numpy(ids),
                torch.from_numpy(is_nucleotide),
                torch.from_numpy(is_target),
                phenotypes[torch.from_numpy(index)],
                None if tracks is None else _pad_tracks([tracks[i] for i in index], ids.shape[1]),
            )


def _standardised(
    tracks: Sequence[Float[np.ndarray, "n_tokens channels"]],
) -> list[Float[np.ndarray, "n_tokens channels"]]:
    every = np.concatenate(tracks)
    mean, scale = np.nanmean(every, axis=0), np.nanstd(every, axis=0)
    return [((track - mean) / scale).astype(np.float32) for track in tracks]


def _pad_tracks(
    tracks: list[Float[np.ndarray, "n_tokens channels"]], time: int
) -> Float[Tensor, "batch time channels"]:
    out = np.full((len(tracks), time, tracks[0].shape[1]), np.nan, dtype=np.float32)
    for row, track in enumerate(tracks):
        out[row, : len(track)] = track
    return torch.from_numpy(out)


def _decay_groups(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    """Weight decay on matrices only: not on norms, biases, decay rates or skip weights."""
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _rate(step: int, options: PretrainingOptions) -> float:
    """Multiple of the learning rate at a step: warm-up, plateau, linear fall."""
    if step < options.warmup_steps:
        return (step + 1) / options.warmup_steps
    fall_from = options.decay_from * options.steps
    return (
        1.0 if step <= fall_from else max(0.0, (options.steps - step) / max(1.0, options.steps - fall_from))
    )


def _words(row: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in row.items() if not math.isnan(value))


def _check(corpus: Corpus) -> None:
    for column, name in enumerate(corpus.names):
        values = corpus.phenotypes[:, column]
        values = values[~np.isnan(values)]
        if values.size < 2 or np.ptp(values) == 0:
            raise DataError(
                f"Phenotype {name!r} has {values.size} values and no spread in the training table; "
                "leave it out of pretraining.phenotypes or add records that carry it."
            )
