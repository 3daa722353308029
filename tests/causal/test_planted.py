"""A probe that is wired to five features of a real model: which methods find them, and only them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from causal_toys import LinearReadOut
from mini_setting import MiniSetting, ReadAtSite, aligned
from torch import Tensor

from helix_sae.causal.acdc import acdc
from helix_sae.causal.alignment import TokenPair
from helix_sae.causal.batches import pair_batches, site_values, unpatched
from helix_sae.causal.effects import Effects, effects
from helix_sae.causal.experiment import Experiment
from helix_sae.causal.inference import attribution

SITE = "layers.2.mixer"
N_WIRED = 5
TAUS = (0.02, 0.04, 0.08, 0.16)
"""All below what losing one of the five costs: about 0.5, half of the square of its usual effect."""


class Planted(NamedTuple):
    """The model read at a site, and what it is wired to.

    Attributes
    ----------
    wired : list of int
        Features whose decoder directions the linear map carries to the output.
    alive : bool (features,)
        Features that are active somewhere in the pairs.
    """

    model: ReadAtSite
    probe: LinearReadOut
    setting: MiniSetting
    pairs: list[TokenPair]
    wired: list[int]
    alive: np.ndarray


@pytest.fixture(scope="module")
def planted(mini) -> Planted:
    setting, sae = mini._replace(saes={SITE: mini.saes[SITE]}), mini.saes[SITE]
    pairs = aligned(setting.designs[setting.designs["role"] == "effect"].iloc[::2])
    delta, error, alive = _differences(setting, pairs)
    read_nothing = Experiment(setting.model, setting.saes, LinearReadOut(torch.zeros(1)), pairs)
    decoder = read_nothing.decoders[SITE].double()
    wired, direction = _wire(decoder, delta, error)
    linear = direction[:, None].float()
    model = ReadAtSite(setting.model, SITE, linear)
    assert sae.d_sae == 384
    return Planted(model, LinearReadOut(torch.ones(1)), setting, pairs, wired, alive)


def _differences(setting: MiniSetting, pairs: list[TokenPair]) -> tuple[Tensor, Tensor, np.ndarray]:
    """Pooled differences of the codes and of the errors of every pair, and which features are active at all."""
    exp = Experiment(setting.model, setting.saes, lambda embedding: embedding.sum(-1), pairs)
    sae, delta, error = setting.saes[SITE], [], []
    alive = np.zeros(sae.d_sae, dtype=bool)
    for batch in pair_batches(exp):
        _, _, source, target = unpatched(exp, batch)
        state = site_values(batch, sae, sae.W_dec.detach(), source[SITE], target[SITE])
        count = batch.source_nucleotide.sum(1)[:, None]
        delta.append(state.delta.sum(1) / count)
        error.append(state.error_delta.sum(1) / count)
        with torch.no_grad():
            codes = sae.encode(source[SITE])[batch.source_nucleotide]
        alive |= (codes > 0).any(0).numpy()
    return torch.cat(delta).double(), torch.cat(error).double(), alive


def _wire(decoder: Tensor, delta: Tensor, error: Tensor) -> tuple[list[int], Tensor]:
    """Five features that change in many pairs and are not among the ten that change most, and a direction that reads them.

    Directions of an overcomplete dictionary are not orthogonal: of all directions with a product of one (in units of each
    feature's usual change) with the five, this is the one to which the other features and the error contribute least, alone
    and together. The features that change most are then decoys.
    """
    size = delta.square().mean(0)
    spread = (decoder * size[:, None]).T @ decoder + error.T @ error / len(error)
    inverse = torch.linalg.inv(spread + 1e-9 * spread.trace() * torch.eye(len(spread), dtype=spread.dtype))
    clarity = size * torch.einsum("jw,wv,jv->j", decoder, inverse, decoder)
    magnitude = delta.abs().mean(0) * decoder.norm(dim=1)
    rank = magnitude.argsort(descending=True).argsort()
    often = (delta != 0).double().mean(0)
    clarity[(rank < 10) | (often < 0.1)] = 0
    wired = clarity.argsort(descending=True)[:N_WIRED].tolist()
    usual = size[wired].sqrt()
    # Signs with which the five add up instead of cancelling.
    scaled = delta[:, wired] / usual
    signs = torch.linalg.svd(scaled, full_matrices=False).Vh[0].sign()
    # What all the others and the error do together is to be small as well, not only each of them.
    rest = delta @ decoder - delta[:, wired] @ decoder[wired] + error
    together = spread + (10 * rest.T @ rest + 3 * error.T @ error) / len(error)
    inverse = torch.linalg.inv(
        together + 1e-9 * together.trace() * torch.eye(len(together), dtype=together.dtype)
    )
    rows = decoder[wired]
    direction = inverse @ rows.T @ torch.linalg.solve(rows @ inverse @ rows.T, signs / usual)
    return wired, direction


def measured(planted: Planted, method: str) -> Effects:
    return effects(
        Experiment(planted.model, {SITE: planted.setting.saes[SITE]}, planted.probe, planted.pairs), method
    )


def found(scores: np.ndarray) -> set[int]:
    """The five features of largest score."""
    return set(np.argsort(-scores[:-1], kind="stable")[:N_WIRED].tolist())


def test_there_are_features_enough_to_go_wrong(planted):
    assert planted.alive.sum() >= 256
    assert planted.alive[planted.wired].all()


@pytest.mark.parametrize("method", ["exact", "atp", "ig"])
def test_single_effects_recover_the_five(planted, method):
    scores = np.abs(measured(planted, method).values[SITE]).mean(axis=0)
    assert found(scores) == set(planted.wired)
    # With room to spare: the weakest of the five stands clear of the strongest of the others and of the error.
    others = np.delete(scores, planted.wired)
    assert scores[planted.wired].min() > 1.5 * others.max()


def test_ranking_by_the_activation_difference_does_worse(planted):
    size = measured(planted, "atp").magnitude[SITE].mean(axis=0)
    assert len(found(size) & set(planted.wired)) == 0


@pytest.mark.parametrize("screening", ["none", "halving"])
def test_acdc_recovers_the_five_from_all_nodes(planted, screening):
    atp = measured(planted, "atp")
    scores = attribution(atp, np.sign(atp.y_target - atp.y_source))
    result = acdc(
        Experiment(planted.model, {SITE: planted.setting.saes[SITE]}, planted.probe, planted.pairs),
        scores,
        taus=TAUS,
        n_random_orders=1,
        screening=screening,
    )
    assert result.metadata["starts_from"] == "all nodes"
    wired = {str(j) for j in planted.wired}
    for order in ("attribution", "random_0"):
        # Precision and recall of one: some circuit of the nested sweep is the five and nothing else.
        circuits = [set(result.circuit(tau, order)["feature"]) for tau in TAUS]
        assert wired in circuits, circuits
