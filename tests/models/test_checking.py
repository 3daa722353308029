"""What is asked of every model: each way to break it is seen, and said."""

from __future__ import annotations

import pytest
import torch
from helix_twin import tiny_model
from plain_models import PLAIN_SITES, PlainModel, PlainNetwork, plain_model
from torch import Tensor, nn

from helix_sae.errors import ModelError
from helix_sae.models.checking import check_model


class Changed(PlainNetwork):
    """A plain network with something wrong."""

    def __init__(self, forward) -> None:
        super().__init__()
        self.wrong, self.position = forward, nn.Embedding(64, 6)

    def forward(self, ids: Tensor) -> Tensor:
        return self.wrong(self, ids)


def seen_from_behind(network: Changed, ids: Tensor) -> Tensor:
    return PlainNetwork.forward(network, ids.flip(1)).flip(1)


def no_context(network: Changed, ids: Tensor) -> Tensor:
    for layer in network.layers:
        layer(network.embed(ids))
    return network.embed(ids)


def differs_in_a_batch(network: Changed, ids: Tensor) -> Tensor:
    return PlainNetwork.forward(network, ids) * len(ids)


def two_dimensional(network: Changed, ids: Tensor) -> Tensor:
    x = network.embed(ids)
    return x + network.layers[0](x)[0] + network.layers[1](x.mean(1))[:, None] + network.layers[2](x)[0]


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (seen_from_behind, "tokens depend on later ones"),
        (no_context, "the first token does not reach the last"),
        (differs_in_a_batch, "gives something else in a batch"),
        (two_dimensional, r"site layers\.1 gives an activation of shape \(1, 6\)"),
    ],
)
def test_a_model_that_is_not_what_it_is_taken_for(forward, said: str):
    model = PlainModel(Changed(forward), PLAIN_SITES)
    model.place("cpu", torch.float32)
    with pytest.raises(ModelError, match=said):
        check_model(model)


def test_a_first_site_that_knows_where_a_token_stands():
    class Placed(PlainNetwork):
        def __init__(self) -> None:
            super().__init__()
            self.place = nn.GRU(6, 6, batch_first=True)

        def forward(self, ids: Tensor) -> Tensor:
            return super().forward(ids) + self.place(self.embed(ids))[0]

    model = PlainModel(Placed(), ["place", *PLAIN_SITES[1:]])
    model.place("cpu", torch.float32)
    with pytest.raises(ModelError, match=r"first site, place, depends on where a token stands"):
        check_model(model)


def test_running_on_that_ends_elsewhere():
    class Lazy(PlainModel):
        def resume(self, site, value, cache, hooks=None):
            return super().resume(site, value, cache, hooks) + 1

    model = Lazy(PlainNetwork(), PLAIN_SITES)
    model.place("cpu", torch.float32)
    with pytest.raises(ModelError, match=r"running on from .* does not end where a whole pass does"):
        check_model(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_models_that_are_right_pass(dtype: torch.dtype):
    for model in (plain_model(), tiny_model()):
        model.place("cpu", dtype)
        check_model(model)
