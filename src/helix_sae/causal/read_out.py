"""Read-outs of a phenotype from the pooled embedding.

A probe is what stands for 'the prediction' when the model itself predicts tokens only. It is fitted on
clusters of its own, judged on others, and refused when it is too weak to be interpreted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from torch import Tensor, nn

from helix_sae.errors import AnalysisError, ModelError, StoreError, WeakProbeError

ProbeKind = Literal["ridge", "logistic", "mlp"]

DEFAULT_ALPHAS: tuple[float, ...] = tuple(float(a) for a in np.logspace(-2, 5, 15))
"""Ridge penalties tried, for standardised inputs."""

_MLP_HIDDEN = 64
_MLP_DECAYS = (1e-3, 1e-2, 1e-1)
_MLP_STEPS = 300
_FOLDS = 5
_OFFSET_SCALE = 10.0
"""Size of the column that marks shifted rows, beside standardised ones: large, so that its weight is hardly
penalised."""
_INVERSE_PENALTIES = tuple(float(c) for c in np.logspace(-4, 2, 7))


@dataclass(frozen=True)
class Probe:
    """An affine read-out, or a stack of them with ReLU between, of the standardised embedding.

    Attributes
    ----------
    kind : {"ridge", "logistic", "mlp", "head"}
        ``head`` is one that the model brought along.
    target : str
        The property's name.
    mean, scale : float64 (d,)
        Standardisation of the input.
    weights : tuple of float64 (d_in, d_out)
        The last one has ``d_out == 1``, or as many as there are classes when one is ``chosen``.
    biases : tuple of float64 (d_out,)
    residual_variance : float
        Variance of target minus out-of-fold prediction, in squared units of the target. NaN for a classifier,
        whose value is the log odds and whose divergence needs none.
    chosen : int, optional
        Of several classes, the one whose log odds against all others are read.
    """

    kind: Literal["ridge", "logistic", "mlp", "head"]
    target: str
    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    weights: tuple[Float[np.ndarray, "d_in d_out"], ...]
    biases: tuple[Float[np.ndarray, " d_out"], ...]
    residual_variance: float
    chosen: int | None = None

    @classmethod
    def of_head(
        cls,
        name: str,
        weight: npt.ArrayLike,
        bias: npt.ArrayLike,
        chosen: int | None = None,
    ) -> Probe:
        """A head that the model brought along, as it is; :func:`head_probe` also judges it.

        Parameters
        ----------
        name : str
            The property's name.
        weight : float (hidden,) or (n_classes, hidden)
            In units of the property; of every class when one is ``chosen``.
        bias : float or float (n_classes,)
        chosen : int, optional
            The class whose log odds are read.
        """
        columns = np.atleast_2d(np.asarray(weight, dtype=np.float64)).T
        return cls(
            kind="head",
            target=name,
            mean=np.zeros(len(columns)),
            scale=np.ones(len(columns)),
            weights=(columns,),
            biases=(np.atleast_1d(np.asarray(bias, dtype=np.float64)),),
            residual_variance=float("nan"),
            chosen=chosen,
        )

    @property
    def is_classifier(self) -> bool:
        """Whether the value read is a log odds."""
        return self.kind == "logistic" or self.chosen is not None

    def __call__(self, embedding: Float[Tensor, "batch hidden"]) -> Float[Tensor, " batch"]:
        """Prediction (log odds for a classifier), differentiable in the embedding."""

        def like(a: np.ndarray) -> Tensor:
            return torch.as_tensor(a, dtype=embedding.dtype, device=embedding.device)

        x = (embedding - like(self.mean)) / like(self.scale)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.relu(x) if i else x
            x = x @ like(weight) + like(bias)
        if self.chosen is None:
            return x.squeeze(-1)
        others = [i for i in range(x.shape[-1]) if i != self.chosen]
        return x[..., self.chosen] - torch.logsumexp(x[..., others], dim=-1)

    def divergence(
        self, y: Float[Tensor, " batch"], y_target: Float[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """Kullback-Leibler divergence of the prediction ``y`` from that for the target.

        Equal-variance Gaussians for a regression, ``(y - y_target)^2 / (2 sigma^2)``; Bernoulli distributions
        for a classifier. In nats.
        """
        if not self.is_classifier:
            return (y - y_target).square() / (2.0 * self.residual_variance)
        p = torch.sigmoid(y_target)
        log = nn.functional.logsigmoid
        return p * (log(y_target) - log(y)) + (1 - p) * (log(-y_target) - log(-y))

    def predict(self, embedding: Float[np.ndarray, "n hidden"]) -> Float[np.ndarray, " n"]:
        """The same for arrays, in float64."""
        with torch.no_grad():
            return self(torch.as_tensor(np.asarray(embedding, dtype=np.float64))).numpy()

    @property
    def direction(self) -> Float[np.ndarray, " d"]:
        """Gradient in the raw embedding of a linear probe.

        Raises
        ------
        AnalysisError
            If the probe is not linear.
        """
        if len(self.weights) != 1 or self.chosen is not None:
            raise AnalysisError(
                f"A probe of kind {self.kind!r} has no one direction; use a ridge or logistic probe."
            )
        return self.weights[0][:, 0] / self.scale


class ProbeFit(NamedTuple):
    """A probe and the evidence that it may be trusted.

    Attributes
    ----------
    probe : Probe
    metrics : DataFrame
        One row: ``target, kind, metric`` (``r2`` or ``auc``), ``out_of_fold``, ``validation``,
        ``n_discovery``, ``n_validation``, ``n_clusters_discovery``, ``n_clusters_validation``, ``penalty``,
        ``residual_sd``.
    predictions : DataFrame
        ``row`` (index into what was given), ``value``, ``prediction`` and ``split``; discovery rows carry
        their out-of-fold prediction.
    """

    probe: Probe
    metrics: pd.DataFrame
    predictions: pd.DataFrame


def fit_probe(
    embedding: Float[np.ndarray, "n hidden"],
    target: Sequence[float] | Float[np.ndarray, " n"],
    clusters: Sequence[str],
    split: Sequence[str],
    *,
    name: str,
    kind: ProbeKind = "ridge",
    alphas: Sequence[float] = DEFAULT_ALPHAS,
    shifted: Sequence[bool] | Bool[np.ndarray, " n"] | None = None,
    seed: int = 0,
) -> ProbeFit:
    """Fit on the discovery clusters, judge on the others.

    Parameters
    ----------
    embedding : float (n, hidden)
        Pooled embeddings.
    target : float (n,)
        The property; rows where it is missing take no part. Two classes (0 and 1) for ``logistic``.
    clusters : sequence of str (n,)
        Unit of splitting; folds never cut through one.
    split : sequence of str (n,)
        ``discovery`` or ``validation``, constant within a cluster.
    name : str
        The property's name.
    kind : {"ridge", "logistic", "mlp"}
        ``ridge`` chooses its penalty by closed-form leave-one-cluster-out error, ``logistic`` and ``mlp`` by
        five folds of clusters.
    alphas : sequence of float
        Ridge penalties.
    shifted : sequence of bool (n,), optional
        Rows that were measured in another experiment, whose level may be another: an offset of their own is
        fitted beside the probe and is no part of it.
    seed : int
        Initialises the MLP.

    Raises
    ------
    AnalysisError
        If a side of the split has too few labelled sequences or clusters, or a classifier's target is not
        0/1.
    """
    y = np.asarray(target, dtype=np.float64)
    known = np.isfinite(y)
    groups, side = np.asarray(clusters, dtype=str), np.asarray(split, dtype=str)
    fit, held = known & (side == "discovery"), known & (side == "validation")
    _check_sides(name, groups, fit, held)
    x = np.asarray(embedding, dtype=np.float64)
    if kind == "logistic" and not np.isin(y[known], (0.0, 1.0)).all():
        raise AnalysisError(f"A logistic probe of {name!r} needs a target of 0 and 1.")
    mean, scale = x[fit].mean(axis=0), x[fit].std(axis=0)
    scale = np.where(scale > 1e-12 * max(1.0, float(scale.max())), scale, 1.0)
    z = (x - mean) / scale
    other = np.zeros(len(x), dtype=bool) if shifted is None else np.asarray(shifted, dtype=bool)
    with_offset = bool(other[fit].any() and not other[fit].all())
    if with_offset:
        z = np.column_stack([z, _OFFSET_SCALE * other])
    if kind == "ridge":
        weights, biases, oof, penalty = _fit_ridge(z[fit], y[fit], groups[fit], alphas)
    elif kind == "logistic":
        weights, biases, oof, penalty = _fit_logistic(z[fit], y[fit], groups[fit])
    else:
        weights, biases, oof, penalty = _fit_mlp(z[fit], y[fit], groups[fit], seed)
    if with_offset:
        weights = (weights[0][:-1], *weights[1:])
    # How far predictions are off among the rows that the probe is for.
    error = (y[fit] - oof)[~other[fit]] if with_offset else y[fit] - oof
    variance = float("nan") if kind == "logistic" else float(np.mean(error**2))
    probe = Probe(kind, name, mean, scale, weights, biases, variance)
    predictions = _predictions(probe, x, y, fit, held, oof)
    return ProbeFit(probe, _metrics(probe, predictions, groups, penalty), predictions)


def head_probe(
    weight: Float[np.ndarray, "n_outputs hidden"] | Float[np.ndarray, " hidden"],
    bias: Float[np.ndarray, " n_outputs"] | float,
    embedding: Float[np.ndarray, "n hidden"],
    target: Sequence[float] | Float[np.ndarray, " n"],
    clusters: Sequence[str],
    split: Sequence[str],
    *,
    name: str,
    chosen: int | None = None,
) -> ProbeFit:
    """A linear head that the model brought along as a probe, judged on the same data.

    Parameters
    ----------
    weight : float (hidden,) or (n_classes, hidden)
        In units of the property; of every class when one is ``chosen``.
    bias : float or float (n_classes,)
    embedding, target, clusters, split, name
        As in :func:`fit_probe`. The head was not fitted on them here, so all of its predictions are out of
        fold.
    chosen : int, optional
        The class that the target, then 0 or 1, stands for.

    Raises
    ------
    AnalysisError
        If a side of the split has too few labelled sequences or clusters, or a class's target is not 0/1.
    """
    x, y = np.asarray(embedding, dtype=np.float64), np.asarray(target, dtype=np.float64)
    groups, side = np.asarray(clusters, dtype=str), np.asarray(split, dtype=str)
    known = np.isfinite(y)
    fit, held = known & (side == "discovery"), known & (side == "validation")
    _check_sides(name, groups, fit, held)
    if chosen is not None and not np.isin(y[known], (0.0, 1.0)).all():
        raise AnalysisError(f"The class that is read as {name!r} needs a target of 0 and 1.")
    probe = Probe.of_head(name, weight, bias, chosen)
    prediction = probe.predict(x)
    if chosen is None:
        probe = replace(probe, residual_variance=float(np.mean((y[fit] - prediction[fit]) ** 2)))
    predictions = _predictions(probe, x, y, fit, held, prediction[fit])
    return ProbeFit(probe, _metrics(probe, predictions, groups, float("nan")), predictions)


def require_strength(fit: ProbeFit, floor: float, *, override: bool = False) -> None:
    """Stop when the held-out R2 (or AUC) is below the floor.

    Raises
    ------
    WeakProbeError
        Unless ``override`` is set.
    """
    row = fit.metrics.iloc[0]
    value, metric = float(row["validation"]), str(row["metric"])
    if override or value >= floor:
        return
    raise WeakProbeError(
        f"The {row['kind']} probe of {row['target']!r} has a held-out {metric} of {value:.3f}, below the"
        f" floor of {floor:.3f} ({int(row['n_validation'])} held-out sequences). Its interventions would not"
        " mean anything: give more labelled sequences, another target or a better model, or lower the floor"
        " or set the override to go on."
    )


def probe_to_arrays(probe: Probe) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Arrays for a safetensors file, and metadata for the JSON beside it."""
    arrays = {"mean": probe.mean, "scale": probe.scale}
    for i, (weight, bias) in enumerate(zip(probe.weights, probe.biases, strict=True)):
        arrays[f"weight_{i}"], arrays[f"bias_{i}"] = weight, bias
    residual = None if np.isnan(probe.residual_variance) else probe.residual_variance
    return arrays, {
        "kind": probe.kind,
        "target": probe.target,
        "n_layers": len(probe.weights),
        "residual_variance": residual,
        "chosen": probe.chosen,
    }


def probe_from_arrays(arrays: dict[str, np.ndarray], metadata: dict[str, object] | str) -> Probe:
    """Inverse of :func:`probe_to_arrays`.

    Raises
    ------
    StoreError
        If something is missing.
    """
    try:
        described = json.loads(metadata) if isinstance(metadata, str) else metadata
        n = int(described["n_layers"])  # pyright: ignore[reportArgumentType]
        residual = described["residual_variance"]
        return Probe(
            kind=described["kind"],  # pyright: ignore[reportArgumentType]
            target=str(described["target"]),
            mean=arrays["mean"],
            scale=arrays["scale"],
            weights=tuple(arrays[f"weight_{i}"] for i in range(n)),
            biases=tuple(arrays[f"bias_{i}"] for i in range(n)),
            residual_variance=float("nan") if residual is None else float(residual),  # pyright: ignore[reportArgumentType]
            chosen=described.get("chosen"),  # pyright: ignore[reportArgumentType]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"The stored probe is incomplete ({error}); run the probe's node again.") from error


def _check_sides(
    name: str, groups: np.ndarray, fit: Bool[np.ndarray, " n"], held: Bool[np.ndarray, " n"]
) -> None:
    for side, rows, least in (("discovery", fit, _FOLDS), ("held-out", held, 2)):
        if len(np.unique(groups[rows])) < least or rows.sum() < 2:
            raise AnalysisError(
                f"A probe of {name!r} needs at least {least} {side} clusters with the property known; there"
                f" are {len(np.unique(groups[rows]))}. Give more labelled sequences or another target."
            )


_Fitted = tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...], np.ndarray, float]


def _fit_ridge(
    z: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"], groups: np.ndarray, alphas: Sequence[float]
) -> _Fitted:
    """Ridge with an unpenalised intercept; the penalty of least leave-one-cluster-out error, in closed form."""
    centre, offset = z.mean(axis=0), float(y.mean())
    u, s, vt = np.linalg.svd(z - centre, full_matrices=False)
    projected = u.T @ (y - offset)
    members = _members(groups)
    candidates = [(float(a), _cluster_out(u, s, projected, y - offset, members, float(a))) for a in alphas]
    alpha, oof = min(candidates, key=lambda c: float(np.mean((c[1] - (y - offset)) ** 2)))
    weight = vt.T @ (s / (s**2 + alpha) * projected)
    bias = offset - float(centre @ weight)
    return (weight[:, None],), (np.array([bias]),), oof + offset, alpha


def _cluster_out(
    u: Float[np.ndarray, "n r"],
    s: Float[np.ndarray, " r"],
    projected: Float[np.ndarray, " r"],
    centred: Float[np.ndarray, " n"],
    members: list[np.ndarray],
    alpha: float,
) -> Float[np.ndarray, " n"]:
    """Prediction of each row by the ridge fitted without its cluster.

    With hat matrix ``H`` (intercept included) the left-out residual of cluster C is ``(I - H_CC)^-1 r_C``:
    the block form of the leave-one-out identity.
    """
    shrink = s**2 / (s**2 + alpha)
    fitted = (u * shrink) @ projected
    residual = centred - fitted
    out = np.empty_like(centred)
    for rows in members:
        hat = (u[rows] * shrink) @ u[rows].T + 1.0 / centred.size
        left_out = np.linalg.solve(np.eye(rows.size) - hat, residual[rows])
        out[rows] = centred[rows] - left_out
    return out


def _members(groups: np.ndarray) -> list[np.ndarray]:
    _, code = np.unique(groups, return_inverse=True)
    order = np.argsort(code, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(code[order])) + 1)


def _fit_logistic(z: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"], groups: np.ndarray) -> _Fitted:
    """Penalised logistic regression; the penalty of least log loss over folds of clusters."""
    folds = list(GroupKFold(_FOLDS).split(z, y, groups))
    if any(np.unique(y[train]).size < 2 for train, _ in folds):
        raise AnalysisError(
            "A fold of clusters holds one class only; give more sequences of the rarer class."
        )
    best: tuple[float, float, np.ndarray] | None = None
    for c in _INVERSE_PENALTIES:
        oof = np.empty_like(y)
        for train, test in folds:
            oof[test] = _logistic(c).fit(z[train], y[train]).decision_function(z[test])
        loss = float(np.mean(np.logaddexp(0.0, np.where(y > 0, -oof, oof))))
        if best is None or loss < best[0]:
            best = (loss, c, oof)
    assert best is not None
    model = _logistic(best[1]).fit(z, y)
    return (model.coef_.T.astype(np.float64),), (model.intercept_.astype(np.float64),), best[2], 1.0 / best[1]


def _logistic(c: float) -> LogisticRegression:
    return LogisticRegression(C=c, max_iter=1000)


def _fit_mlp(
    z: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"], groups: np.ndarray, seed: int
) -> _Fitted:
    """One hidden layer of ReLU units; the weight decay of least squared error over folds of clusters."""
    offset, spread = float(y.mean()), float(y.std()) or 1.0
    target = (y - offset) / spread
    folds = list(GroupKFold(_FOLDS).split(z, y, groups))
    best: tuple[float, float, np.ndarray] | None = None
    for decay in _MLP_DECAYS:
        oof = np.empty_like(y)
        for train, test in folds:
            network = _train_mlp(z[train], target[train], decay, seed)
            with torch.no_grad():
                oof[test] = network(torch.as_tensor(z[test])).squeeze(-1).numpy()
        loss = float(np.mean((oof - target) ** 2))
        if best is None or loss < best[0]:
            best = (loss, decay, oof)
    assert best is not None
    network = _train_mlp(z, target, best[1], seed)
    first, last = network[0], network[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    arrays = [p.detach().numpy().T.copy() for p in (first.weight, last.weight * spread)]
    biases = (first.bias.detach().numpy().copy(), (last.bias * spread + offset).detach().numpy().copy())
    return (arrays[0], arrays[1]), biases, best[2] * spread + offset, best[1]


def _train_mlp(
    z: Float[np.ndarray, "n d"], target: Float[np.ndarray, " n"], decay: float, seed: int
) -> nn.Sequential:
    """Full-batch AdamW in float64, cosine rate."""
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Linear(z.shape[1], _MLP_HIDDEN), nn.ReLU(), nn.Linear(_MLP_HIDDEN, 1)).double()
    with torch.no_grad():
        for layer in (network[0], network[2]):
            assert isinstance(layer, nn.Linear)
            bound = layer.in_features**-0.5
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.zero_()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, _MLP_STEPS)
    x, y = torch.as_tensor(z), torch.as_tensor(target)
    for _ in range(_MLP_STEPS):
        optimiser.zero_grad()
        (network(x).squeeze(-1) - y).square().mean().backward()
        optimiser.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def _predictions(
    probe: Probe,
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    fit: Bool[np.ndarray, " n"],
    held: Bool[np.ndarray, " n"],
    out_of_fold: Float[np.ndarray, " m"],
) -> pd.DataFrame:
    if not np.isfinite(out_of_fold).all():
        raise ModelError(
            f"The probe of {probe.target!r} predicts values that are not finite; check the embeddings."
        )
    parts = [
        pd.DataFrame({"row": np.flatnonzero(rows), "value": y[rows], "prediction": p, "split": side})
        for rows, p, side in ((fit, out_of_fold, "discovery"), (held, probe.predict(x[held]), "validation"))
    ]
    return pd.concat(parts, ignore_index=True).sort_values("row", ignore_index=True)


def _metrics(probe: Probe, predictions: pd.DataFrame, groups: np.ndarray, penalty: float) -> pd.DataFrame:
    score = _auc if probe.is_classifier else r_squared
    sides = dict(list(predictions.groupby("split")))
    discovery, held = sides["discovery"], sides["validation"]
    return pd.DataFrame(
        {
            "target": [probe.target],
            "kind": [probe.kind],
            "metric": ["auc" if probe.is_classifier else "r2"],
            "out_of_fold": [score(discovery["value"].to_numpy(), discovery["prediction"].to_numpy())],
            "validation": [score(held["value"].to_numpy(), held["prediction"].to_numpy())],
            "n_discovery": [len(discovery)],
            "n_validation": [len(held)],
            "n_clusters_discovery": [len(np.unique(groups[discovery["row"]]))],
            "n_clusters_validation": [len(np.unique(groups[held["row"]]))],
            "penalty": [penalty],
            "residual_sd": [float(np.sqrt(probe.residual_variance))],
        }
    )


def r_squared(value: Float[np.ndarray, " n"], prediction: Float[np.ndarray, " n"]) -> float:
    """Share of the variance around the mean that the prediction explains; negative when it is worse than the mean."""
    total = float(((value - value.mean()) ** 2).sum())
    return 1.0 - float(((value - prediction) ** 2).sum()) / total if total > 0 else float("nan")


def _auc(value: Float[np.ndarray, " n"], prediction: Float[np.ndarray, " n"]) -> float:
    return float(roc_auc_score(value, prediction)) if np.unique(value).size == 2 else float("nan")
