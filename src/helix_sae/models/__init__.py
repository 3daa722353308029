"""Models: what everything else may ask of one, and those that come with the package.

Names are imported on first use, so that a catalog can be read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from helix_sae.models.checking import check_model
    from helix_sae.models.contract import Edit, Head, Model
    from helix_sae.models.extraction import activations_of, extract_activations
    from helix_sae.models.registry import ModelHandle, adopt, handle_for, load_model, open_model

__all__ = [
    "Edit",
    "Head",
    "Model",
    "ModelHandle",
    "activations_of",
    "adopt",
    "check_model",
    "extract_activations",
    "handle_for",
    "load_model",
    "open_model",
]

_HOMES = {
    "Edit": "contract",
    "Head": "contract",
    "Model": "contract",
    "ModelHandle": "registry",
    "activations_of": "extraction",
    "adopt": "registry",
    "check_model": "checking",
    "extract_activations": "extraction",
    "handle_for": "registry",
    "load_model": "registry",
    "open_model": "registry",
}


def __getattr__(name: str) -> object:
    """Import a public name from its home (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
