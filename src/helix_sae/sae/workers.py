"""A few threads that share the work of a step.

Work is cut into pieces that do not depend on how many threads there are, and each piece runs single-threaded:
the same bits come out on any number of cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """Maps functions over pieces of work, in order, on ``n_threads`` threads (1: in the caller's)."""

    def __init__(self, n_threads: int = 1) -> None:
        self.n_threads = n_threads
        self._pool = ThreadPoolExecutor(n_threads) if n_threads > 1 else None

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Apply ``function`` to each item; results in order."""
        work = list(items)
        if self._pool is None or len(work) < 2:
            return [function(item) for item in work]
        return list(self._pool.map(function, work))

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


SERIAL = Workers()
"""Everything in the caller's thread."""


@contextmanager
def borrowed_threads() -> Iterator[int]:
    """Keep torch to one thread an operation inside, and give the number of threads that this frees."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)
