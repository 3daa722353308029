"""The one door to helical.

Importing helical adds a handler to the root logger, sets its level and turns propagation off, so every line of a run
would be printed twice. It is imported here only, on first use, and the logging that it disturbs is put back.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def undisturbed_logging() -> Iterator[None]:
    """Restore the root logger's handlers, level and propagation, and silence upstream chatter inside the block."""
    root = logging.getLogger()
    handlers, level, propagate = list(root.handlers), root.level, root.propagate
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        root.propagate = propagate


def import_helix_mrna() -> ModuleType:
    """``helical.models.helix_mrna``, with the process's logging left as it was."""
    with undisturbed_logging():
        return importlib.import_module("helical.models.helix_mrna")


def import_modeling() -> ModuleType:
    """``helical.models.helix_mrna.modeling_helix_mrna``: the network's classes."""
    with undisturbed_logging():
        return importlib.import_module("helical.models.helix_mrna.modeling_helix_mrna")


def import_submodule(name: str) -> ModuleType:
    """Another module of ``helical.models.helix_mrna``, by its last name."""
    with undisturbed_logging():
        return importlib.import_module(f"helical.models.helix_mrna.{name}")
