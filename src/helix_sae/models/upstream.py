"""The one door to helical.

helical adds a handler to the root logger, sets its level, turns propagation off and redirects warnings when
it is imported, and calls ``logging.basicConfig`` when a model is made: every line of a run would be printed
twice. It is imported here only, on first use, and what it disturbs is put back before any other module can
log a line. transformers, which it loads weights with, draws bars on the terminal; they are not shown either.
"""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

_PACKAGE = "helical"


@contextmanager
def undisturbed_logging() -> Iterator[None]:
    """Leave the process's logging as it was found, and silence upstream chatter inside the block.

    Restored are the root logger's handlers, level and propagation, whether warnings go to the log, and
    whether transformers draws bars. Inside the block helical's loggers say nothing below an error, no warning
    is shown and no bar is drawn.
    """
    root, upstream = logging.getLogger(), logging.getLogger(_PACKAGE)
    handlers, level, propagate = list(root.handlers), root.level, root.propagate
    upstream_level = upstream.level
    captured = _captures_warnings()
    upstream.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), _no_bars():
            warnings.simplefilter("ignore")
            try:
                yield
            finally:
                if _captures_warnings() != captured:
                    logging.captureWarnings(captured)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        root.propagate = propagate
        upstream.setLevel(upstream_level)


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep transformers, if it is loaded, from drawing bars such as the one of loading weights."""
    told = sys.modules.get("transformers.utils.logging")
    if told is None or not told.is_progress_bar_enabled():
        yield
        return
    told.disable_progress_bar()
    try:
        yield
    finally:
        told.enable_progress_bar()


@cache
def import_helical(name: str) -> ModuleType:
    """A module of ``helical.models``, such as ``helix_mrna``, with the process's logging left as it was."""
    # The package itself first and by itself: it is what adds the handler, and the modules under it import
    # libraries that log, whose lines that handler would repeat.
    with undisturbed_logging():
        importlib.import_module(_PACKAGE)
    with undisturbed_logging():
        return importlib.import_module(f"{_PACKAGE}.models.{name}")


def _captures_warnings() -> bool:
    """Whether ``logging.captureWarnings`` is on; the standard library has no question for it."""
    return getattr(logging, "_warnings_showwarning", None) is not None
