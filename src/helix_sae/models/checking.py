"""What is asked of every model, found out by trying it (milliseconds) whenever one is opened."""

from __future__ import annotations

import torch
from torch import Tensor

from helix_sae.errors import ModelError
from helix_sae.models.contract import Model
from helix_sae.mrna.tokens import PAD_ID, VOCABULARY

_LETTERS = "GGACUUACGAUUGCA"
_SHORTER = 9


@torch.no_grad()
def check_model(model: Model) -> None:
    """Make sure that a model is what this package takes it for.

    Its sites are modules that give (batch, time, width); the first is what a token gives by itself; no token
    depends on a later one, nor on padding or on what else is in the batch; earlier tokens reach later ones;
    running on from a site ends where a whole pass does.

    Raises
    ------
    ModelError
        Naming what does not hold, and what to do.
    """
    ids = torch.tensor([[VOCABULARY[letter] for letter in _LETTERS]], device=model.device)
    hidden, first, last = model.hidden(ids), model.site_names[0], model.site_names[-1]
    activations = model.capture(ids, model.site_names)
    for site, x in activations.items():
        if x.ndim != 3 or x.shape[:2] != ids.shape:
            raise _wrong(
                model,
                f"site {site} gives an activation of shape {tuple(x.shape)} for one sequence of"
                f" {ids.shape[1]} tokens, where (1, {ids.shape[1]}, width) is expected; leave it out of its"
                " sites",
            )
    changed = torch.cat([ids[:, :-1], ids[:, :1]], dim=1)
    if not _close(model.hidden(changed)[:, :-1], hidden[:, :-1]):
        raise _wrong(model, "tokens depend on later ones; only causal models can be patched here")
    alone = model.capture(ids[:, 3:], [first])[first]
    if not _close(alone, activations[first][:, 3:]):
        raise _wrong(
            model,
            f"its first site, {first}, depends on where a token stands; name the module that looks tokens up",
        )
    changed = torch.cat([ids[:, -1:], ids[:, 1:]], dim=1)
    if torch.equal(model.hidden(changed)[:, -1], hidden[:, -1]):
        raise _wrong(
            model, "the first token does not reach the last; its layers are not chained, or it has none"
        )
    shorter = torch.nn.functional.pad(ids[:, :_SHORTER], (0, ids.shape[1] - _SHORTER), value=PAD_ID)
    together = model.hidden(torch.cat([ids, shorter]))
    if not (_close(together[:1], hidden) and _close(together[1:, :_SHORTER], hidden[:, :_SHORTER])):
        raise _wrong(model, "a sequence gives something else in a batch or beside padding than alone")
    cache = model.cache(ids)
    for site in {first, last}:
        if not _close(model.resume(site, model.at_site(site, cache), cache), hidden):
            raise _wrong(model, f"running on from {site} does not end where a whole pass does")


def _close(found: Tensor, expected: Tensor) -> bool:
    """Equal but for rounding: shapes of batches change the order of sums."""
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-3}.get(expected.dtype, 0.1)
    scale = float(expected.abs().max())
    return float((found - expected).abs().max()) <= tolerance * scale


def _wrong(model: Model, what: str) -> ModelError:
    return ModelError(f"{type(model).__name__} ({model.fingerprint[:12]}): {what}.")
