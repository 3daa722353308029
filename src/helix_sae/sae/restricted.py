"""An SAE that speaks of some of its features only: the certified ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from helix_sae.errors import AnalysisError
from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.sparse import ActiveCodes, kept


class RestrictedAutoencoder(SparseAutoencoder):
    """An SAE whose other features are silent; they keep their numbers.

    What the silent features would have reconstructed is left in the error ``x - decode(encode(x))``: in an
    experiment it belongs to the error node.

    Parameters
    ----------
    base : SparseAutoencoder
    spoken : bool (d_sae,)
        Features that keep their codes.
    """

    def __init__(self, base: SparseAutoencoder, spoken: Bool[np.ndarray, " d_sae"]) -> None:
        nn.Module.__init__(self)
        self.base = base
        self.config, self.stability, self.origin = base.config, base.stability, base.origin
        self.d_in, self.d_sae = base.d_in, base.d_sae
        for name in ("W_enc", "W_dec", "b_dec"):
            self.register_parameter(name, base.get_parameter(name))
        self.register_buffer("spoken", torch.from_numpy(np.asarray(spoken, dtype=bool)).to(base.b_dec.device))

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of the whole SAE."""
        return self.base.tensor_shapes()

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Codes of raw activations, 0 for the silent features."""
        return self.base.encode(x) * self.get_buffer("spoken")

    def encode_active(self, x: Float[Tensor, "n d_in"]) -> ActiveCodes:
        """Active pairs without those of the silent features."""
        active = self.base.encode_active(x)
        return kept(active, self.get_buffer("spoken")[active.features])

    def to_saelens(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """SAELens knows no silent features: what is written is the whole SAE."""
        return self.base.to_saelens()


def certified_masks(
    stability: Mapping[str, pd.DataFrame | None],
) -> dict[str, Bool[np.ndarray, " d_sae"]]:
    """Which features of each site are certified.

    Parameters
    ----------
    stability : mapping of site to DataFrame or None
        Tables with ``certified``, a row a feature: :attr:`SparseAutoencoder.stability`, or the ``var`` of
        AnnData.

    Raises
    ------
    AnalysisError
        If no site has a certified feature, or a site's stability is unknown.
    """
    unknown = [
        site
        for site, table in stability.items()
        if table is None or bool((table["certified"] == "unknown").any())
    ]
    if unknown:
        raise AnalysisError(
            f"Certified features were asked for, but the stability of those of {', '.join(unknown)} is"
            " unknown: fewer than five seeds were trained. Set sae_training.n_seeds to 5 or more and train"
            " again, or certified_only to false."
        )
    masks = {
        site: (table["certified"] == "yes").to_numpy()
        for site, table in stability.items()
        if table is not None
    }
    if not any(mask.any() for mask in masks.values()):
        raise AnalysisError(
            f"Certified features were asked for, but no feature of {', '.join(masks)} comes back in three"
            " quarters of the other seeds. Train longer or with fewer features, or set certified_only to"
            " false."
        )
    return masks
