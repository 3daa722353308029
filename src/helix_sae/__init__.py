"""Helix SAE: what an mRNA foundation model computes, in sparse features, and which of them its predictions need.

The public face for people who do not use Kedro::

    from helix_sae import SAEAnalysisPipeline, SparseAutoencoder, load_helix, train_saes

Names are imported on first use, so that ``import helix_sae`` is quick and changes nothing in the process.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from helix_sae.analysis import SAEAnalysisPipeline
    from helix_sae.causal.effects import effects
    from helix_sae.causal.experiment import Experiment
    from helix_sae.models.helix.loading import load_helix
    from helix_sae.sae.autoencoder import SparseAutoencoder
    from helix_sae.sae.training import train_saes

__version__ = "0.1.0"

__all__ = [
    "Experiment",
    "SAEAnalysisPipeline",
    "SparseAutoencoder",
    "__version__",
    "effects",
    "load_helix",
    "train_saes",
]

_HOMES = {
    "Experiment": "helix_sae.causal.experiment",
    "SAEAnalysisPipeline": "helix_sae.analysis",
    "SparseAutoencoder": "helix_sae.sae.autoencoder",
    "effects": "helix_sae.causal.effects",
    "load_helix": "helix_sae.models.helix.loading",
    "train_saes": "helix_sae.sae.training",
}


def __getattr__(name: str) -> object:
    """Import a public name from its home (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
