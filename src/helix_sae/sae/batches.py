"""Batches of activations from memory, for notebooks, tests and data that fits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from helix_sae.batches import Batches
from helix_sae.errors import DataError


class ArrayBatches(Batches):
    """Shuffled batches of aligned arrays, reshuffled each epoch; iterate it as often as you like.

    Parameters
    ----------
    arrays : mapping of site to (n_tokens, d_in) array or Tensor
        One row a token, the same tokens at every site.
    batch_size : int
        Rows a batch; the last of an epoch may be shorter.
    seed : int, optional
        Of the shuffling; None keeps the order.
    epochs : int
        How often the tokens are gone through.

    Raises
    ------
    DataError
        If there is no site or no token, or the sites hold different numbers of tokens.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray | Tensor],
        batch_size: int,
        seed: int | None = None,
        epochs: int = 1,
    ) -> None:
        self.arrays = {site: torch.as_tensor(array) for site, array in arrays.items()}
        sizes = {site: array.shape[0] for site, array in self.arrays.items()}
        if not sizes or min(sizes.values()) == 0 or len(set(sizes.values())) != 1:
            raise DataError(
                f"Every site needs the same number of tokens, at least one; the sites have {sizes}."
            )
        super().__init__(
            lambda _: [self.arrays],
            n_tokens=next(iter(sizes.values())),
            batch_size=batch_size,
            seed=seed,
            epochs=epochs,
        )
