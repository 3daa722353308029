"""What is said where memory runs out: how much was asked for, by which step, and what makes it less."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from helix_sae.errors import MemoryLimitError

_TOLD = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "unable to allocate",
)
"""What CUDA, torch's allocator for the CPU and the system say, in lower case; the class does not tell."""

_SMALLER = {
    "pretraining": ("pretraining.training.token_budget",),
    "extraction": ("extraction.token_budget", "extraction.shard_tokens"),
    "sae_training": ("sae_training.batch_size", "extraction.tokens_per_sequence"),
    "sae_sweep": ("sae_training.batch_size", "extraction.tokens_per_sequence"),
    "correlation": ("correlation.concepts.max_nucleotides", "correlation.n_permutations"),
    "causal_acdc": ("causal_acdc.token_budget", "causal_acdc.pairs.max_length"),
    "reporting": ("reporting.n_features",),
}
"""Parameters on which the memory of a pipeline depends most."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from, says that memory could not be had."""
    seen: BaseException | None = error
    while seen is not None:
        told = str(seen).lower()
        if isinstance(seen, MemoryError) or (
            isinstance(seen, RuntimeError | OSError) and any(words in told for words in _TOLD)
        ):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def memory_limit(error: BaseException, node: str, parameters: Mapping[str, Any]) -> MemoryLimitError:
    """Say where memory ran out and what makes the step smaller.

    Parameters
    ----------
    error : BaseException
        One that :func:`is_out_of_memory` knows.
    node : str
        ``<pipeline>.<step>``.
    parameters : mapping
        Of the run, by Kedro's names (``params:extraction``): the values that stand are shown.
    """
    pipeline, _, step = node.rpartition(".")
    smaller = ", ".join(_with_values(_SMALLER.get(pipeline, ()), parameters))
    lower = f"Lower {smaller}; or give" if smaller else "Give"
    return MemoryLimitError(
        f"{step} ({pipeline or 'a step'}): there is not enough memory ({_first_sentence(error)}).\n"
        f"{lower} fewer sequences, or take a machine or device with more memory. What was completed is kept:"
        " `kedro run --only-missing-outputs` goes on from there."
    )


def _with_values(names: tuple[str, ...], parameters: Mapping[str, Any]) -> Iterator[str]:
    for name in names:
        group, *path = name.split(".")
        value: Any = parameters.get(f"params:{group}")
        for key in path:
            value = cast("Mapping[str, Any]", value).get(key) if isinstance(value, Mapping) else None
        shown = f"{value:,}" if isinstance(value, int) else value
        yield name if value is None else f"{name} (now {shown})"


def _first_sentence(error: BaseException) -> str:
    """The beginning of what the library says; CUDA goes on for a dozen lines about its own settings."""
    told = " ".join(str(error).split()) or type(error).__name__
    said = re.split(r"(?<=[.!]) (?=[A-Z])", told)
    return " ".join(said[:2])[:300].rstrip(".")
