"""Activations of many sequences: the work of one shard, as a function that can be sent anywhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from helix_sae.models.batching import DEFAULT_TOKEN_BUDGET
from helix_sae.models.contract import Model
from helix_sae.models.registry import ModelHandle, open_model
from helix_sae.mrna.tokens import TokenizedSequence


def extract_activations(
    tokens: Sequence[TokenizedSequence],
    *,
    handle: ModelHandle,
    sites: Sequence[str],
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> dict[str, Float[np.ndarray, "n_tokens hidden"]]:
    """Run the model over some sequences and keep what passes its sites.

    Parameters
    ----------
    tokens : sequence of TokenizedSequence
    handle : ModelHandle
        Of the model, which is opened on first use in each process.
    sites : sequence of str
    token_budget : int
        Tokens a batch. Batches hold sequences of nearly one length and do not change the result.

    Returns
    -------
    dict of site to float32 (n_tokens, hidden)
        Every token of every sequence, in the order of the input.

    Raises
    ------
    UnknownSiteError
        If a site does not exist.
    """
    return activations_of(open_model(handle), tokens, sites=sites, token_budget=token_budget)


def activations_of(
    model: Model,
    tokens: Sequence[TokenizedSequence],
    *,
    sites: Sequence[str],
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> dict[str, Float[np.ndarray, "n_tokens hidden"]]:
    """The same, of a model that is open already; see :func:`extract_activations`."""
    lengths = np.array([t.ids.size for t in tokens], dtype=np.int64)
    first = np.concatenate([[0], np.cumsum(lengths)])
    on_gpu = model.device.type == "cuda"
    shape = (int(first[-1]), model.hidden_size)
    # A GPU copies into pinned memory at several times the speed, and is waited for once, at the end.
    out = {site: torch.empty(shape, pin_memory=on_gpu) for site in sites}
    for index in model.batches(tokens, token_budget):
        ids, _ = model.tensors([tokens[i] for i in index])
        for site, activation in model.capture(ids, sites).items():
            values = activation.float()
            for row, i in enumerate(index):
                rows = slice(int(first[i]), int(first[i + 1]))
                out[site][rows].copy_(values[row, : lengths[i]], non_blocking=on_gpu)
    if on_gpu:
        torch.cuda.synchronize(model.device)
    return {site: values.numpy() for site, values in out.items()}
