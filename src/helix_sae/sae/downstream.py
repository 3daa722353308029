"""What reconstructions are worth to the model: it runs on with a site's activation replaced by its reconstruction.

Explained variance counts every direction alike; the model does not. So each site is replaced, one at a time,
and what comes out is compared with the undisturbed pass and with passes whose site holds its mean, or zeros,
at every token: ``recovered = (ablated - reconstructed) / (ablated - clean)`` of the next-token cross-entropy,
1 for a perfect reconstruction. The mean is the stricter reference; zeros are what SAELens and SAEBench count
from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from helix_sae.errors import DataError
from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.sparse import decode_active

if TYPE_CHECKING:
    from helix_sae.models.contract import Model

Variant = Literal["clean", "reconstructed", "mean", "zero"]
ABLATIONS: tuple[Variant, ...] = ("reconstructed", "mean", "zero")


@dataclass(frozen=True)
class Outcome:
    """What came out of the model, a row a sequence.

    Attributes
    ----------
    embedding : float64 (n, hidden)
        Mean-pooled last hidden states.
    nats : float64 (n,)
        Next-token cross-entropy summed over the sequence; NaN without a head.
    n_predicted : int64 (n,)
        Tokens that were predicted.
    """

    embedding: Float[np.ndarray, "n hidden"]
    nats: Float[np.ndarray, " n"]
    n_predicted: Int[np.ndarray, " n"]

    @property
    def cross_entropy(self) -> float:
        """Nats a token."""
        return float(self.nats.sum() / max(1, self.n_predicted.sum()))


Outcomes = dict[tuple[str, Variant], Outcome]
"""By site and what was put there; the undisturbed pass is ``("", "clean")``."""


@torch.no_grad()
def run_spliced(
    model: Model,
    tokens: Sequence[Any],
    saes: Mapping[str, SparseAutoencoder],
    means: Mapping[str, Float[Tensor, " d_in"]],
) -> Outcomes:
    """Run sequences undisturbed, and with each site's activation reconstructed, at its mean, and at zero.

    Parameters
    ----------
    model : Model
    tokens : sequence of TokenizedSequence
        Held-out sequences.
    saes : mapping of site to SparseAutoencoder
    means : mapping of site to Tensor (d_in,)
        Mean activation of each site, over tokens the SAE was trained on.

    Raises
    ------
    DataError
        If there is no sequence.
    """
    if not tokens:
        raise DataError(
            "There is no held-out sequence to run the model on; lower the share of discovery clusters."
        )
    keys: list[tuple[str, Variant]] = [("", "clean"), *((s, v) for s in saes for v in ABLATIONS)]
    rows: dict[tuple[str, Variant], list[tuple[np.ndarray, ...]]] = {key: [] for key in keys}
    order: list[np.ndarray] = []
    for index in model.batches(tokens):
        batch = [tokens[i] for i in index]
        ids, is_nucleotide = model.tensors(batch)
        lengths = torch.tensor([t.ids.size for t in batch], device=ids.device)
        predicted = torch.arange(1, ids.shape[1], device=ids.device) < lengths[:, None]
        cache = model.cache(ids)

        def measure(hidden: Tensor) -> tuple[np.ndarray, ...]:
            return _measure(model, hidden, ids, is_nucleotide, predicted)  # noqa: B023

        order.append(np.asarray(index))
        rows["", "clean"].append(measure(model.hidden(ids)))
        for site, sae in saes.items():
            value = model.at_site(site, cache)
            for variant, put in _replacements(sae, value, means[site]).items():
                rows[site, variant].append(measure(model.resume(site, put, cache)))
    back = np.argsort(np.concatenate(order))
    return {
        key: Outcome(*(np.concatenate(column)[back] for column in zip(*parts, strict=True)))
        for key, parts in rows.items()
    }


def _replacements(
    sae: SparseAutoencoder, value: Float[Tensor, "batch time d_in"], mean: Float[Tensor, " d_in"]
) -> dict[Variant, Tensor]:
    flat = value.reshape(-1, value.shape[-1]).float().cpu()
    rebuilt = decode_active(sae.encode_active(flat), sae.W_dec.detach()).add_(sae.b_dec.detach())
    return {
        "reconstructed": rebuilt.view(value.shape).to(value),
        "mean": mean.to(value).expand_as(value).clone(),
        "zero": torch.zeros_like(value),
    }


def _measure(
    model: Model,
    hidden: Float[Tensor, "batch time hidden"],
    ids: Int[Tensor, "batch time"],
    is_nucleotide: Bool[Tensor, "batch time"],
    predicted: Bool[Tensor, "batch time_1"],
) -> tuple[np.ndarray, ...]:
    pooled = model.pool(hidden, is_nucleotide).double().cpu().numpy()
    counts = predicted.sum(1).cpu().numpy()
    logits = model.next_token_logits(hidden[:, :-1])
    if logits is None:
        return pooled, np.full(len(counts), np.nan), counts
    nats = nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    nats = nats.view(predicted.shape).double() * predicted
    return pooled, nats.sum(1).cpu().numpy(), counts


def downstream_measures(outcomes: Outcomes) -> pd.DataFrame:
    """Compare the outcomes of :func:`run_spliced`, a row a site.

    Returns
    -------
    DataFrame
        ``site``, ``n_sequences``, ``n_tokens``, ``embedding_cosine`` (of centred embeddings with and without
        the replacement, mean over sequences), ``embedding_cosine_mean_ablated``, ``ce_clean``,
        ``ce_reconstructed``, ``ce_mean_ablated``, ``ce_zero_ablated`` (nats a token), ``ce_recovered`` (from
        the mean), ``ce_recovered_from_zero``. Cross-entropies are NaN for a model without a next-token head;
        a share is NaN where the ablation does no harm.
    """
    clean = outcomes["", "clean"]
    rows: list[dict[str, Any]] = []
    for site in dict.fromkeys(site for site, _ in outcomes if site):
        rebuilt, mean, zero = (outcomes[site, variant] for variant in ABLATIONS)
        ce = {
            name: o.cross_entropy
            for name, o in (("clean", clean), ("sae", rebuilt), ("mean", mean), ("zero", zero))
        }
        rows.append(
            {
                "site": site,
                "n_sequences": len(clean.nats),
                "n_tokens": int(clean.n_predicted.sum()),
                "embedding_cosine": centred_cosine(clean.embedding, rebuilt.embedding),
                "embedding_cosine_mean_ablated": centred_cosine(clean.embedding, mean.embedding),
                "ce_clean": ce["clean"],
                "ce_reconstructed": ce["sae"],
                "ce_mean_ablated": ce["mean"],
                "ce_zero_ablated": ce["zero"],
                "ce_recovered": recovered(ce["clean"], ce["sae"], ce["mean"]),
                "ce_recovered_from_zero": recovered(ce["clean"], ce["sae"], ce["zero"]),
            }
        )
    return pd.DataFrame(rows)


def probe_kept(
    outcomes: Outcomes,
    target: str,
    y: Float[np.ndarray, " n"],
    probe: Callable[[Float[np.ndarray, "n hidden"]], Float[np.ndarray, " n"]],
) -> pd.DataFrame:
    """Held-out R2 of a read-out of the embedding, undisturbed and with each site replaced.

    Parameters
    ----------
    outcomes : of :func:`run_spliced`
    target : str
        Name of the property.
    y : float (n,)
        Its values; sequences with NaN are left out.
    probe : callable
        From embeddings to predictions, fitted on other sequences.

    Returns
    -------
    DataFrame
        ``site``, ``target``, ``n_sequences``, ``r2_clean``, ``r2_reconstructed``, ``r2_mean_ablated``,
        ``r2_kept`` (reconstructed over clean; NaN where the read-out says nothing undisturbed).
    """
    labelled = np.isfinite(y)
    r2 = {key: r_squared(y[labelled], probe(o.embedding[labelled])) for key, o in outcomes.items()}
    clean = r2["", "clean"]
    rows = [
        {
            "site": site,
            "target": target,
            "n_sequences": int(labelled.sum()),
            "r2_clean": clean,
            "r2_reconstructed": r2[site, "reconstructed"],
            "r2_mean_ablated": r2[site, "mean"],
            "r2_kept": r2[site, "reconstructed"] / clean if clean > 0 else float("nan"),
        }
        for site in dict.fromkeys(site for site, _ in outcomes if site)
    ]
    return pd.DataFrame(rows)


def centred_cosine(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "n d"]) -> float:
    """Mean cosine of the rows of two matrices, both seen from the mean of the first.

    Embeddings share a large constant part; without taking it away every cosine would be near 1.
    """
    centre = a.mean(axis=0)
    a, b = a - centre, b - centre
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.divide((a * b).sum(axis=1), size, out=np.zeros(len(a)), where=size > 0).mean())


def recovered(clean: float, reconstructed: float, ablated: float) -> float:
    """Share of the harm of an ablation that the reconstruction undoes; NaN where it does none."""
    harm = ablated - clean
    return (ablated - reconstructed) / harm if harm > 0 else float("nan")


def r_squared(y: Float[np.ndarray, " n"], predicted: Float[np.ndarray, " n"]) -> float:
    """Coefficient of determination; NaN where ``y`` does not vary."""
    spread = float(np.square(y - y.mean()).sum()) if y.size else 0.0
    return 1.0 - float(np.square(y - predicted).sum()) / spread if spread > 0 else float("nan")
