"""Spreading pure work over this process or a cluster.

A piece of work is a picklable function of one item; items and results are small (handles, ids, parameters),
arrays go through storage. What does the work is one setting of the environment, made by the project's hook
with :func:`set_engine`; no other module knows it.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from helix_sae.errors import ConfigurationError, HelixSaeError
from helix_sae.progress import progress_bar

_POLL_S = 0.02
_LOOK_EVERY_S = 10.0
"""So often a cluster that gives no result is asked whether it has workers."""

Item = TypeVar("Item")
Result = TypeVar("Result")
Made = TypeVar("Made")

_IN_FLIGHT_PER_WORKER = 2
_FINISHING_THREADS = 6
"""At most so many results wait to be finished, each perhaps large."""


class EngineError(HelixSaeError):
    """The workers cannot be reached, or one of them failed."""


class EngineParameters(BaseModel):
    """What does the work.

    Attributes
    ----------
    kind : {"serial", "threads", "dask"}
        This process; threads of this process; a Dask cluster (extra ``cluster``).
    workers : int
        Threads, or Dask workers to wait for before work starts (SLURM: jobs to ask for).
    address : str, optional
        Scheduler of a running Dask cluster, e.g. ``tcp://head:8786``.
    slurm : mapping, optional
        Arguments of ``dask_jobqueue.SLURMCluster`` to start a cluster instead (``queue``, ``cores``,
        ``memory``...).
    timeout_s : float
        How long to wait for workers: in the beginning, and where none is left.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["serial", "threads", "dask"] = "serial"
    workers: int = Field(default=1, ge=1, le=10_000)
    address: str | None = None
    slurm: dict[str, Any] | None = None
    timeout_s: float = Field(default=300.0, gt=0)

    @model_validator(mode="after")
    def _one_cluster(self) -> EngineParameters:
        named = [name for name in ("address", "slurm") if getattr(self, name) is not None]
        if self.kind == "dask" and len(named) != 1:
            raise ValueError(
                "kind: dask needs either `address` (a running scheduler) or `slurm` (jobs to start)"
            )
        if self.kind != "dask" and named:
            raise ValueError(f"{named[0]} goes with kind: dask, not with kind: {self.kind}")
        return self


_engine = EngineParameters()


@contextmanager
def use_engine(parameters: EngineParameters) -> Iterator[None]:
    """Let :func:`map_work` use these workers within the block."""
    previous = set_engine(parameters)
    try:
        yield
    finally:
        set_engine(previous)


def set_engine(parameters: EngineParameters) -> EngineParameters:
    """Let :func:`map_work` use these workers from now on; returns the setting before."""
    global _engine
    previous, _engine = _engine, parameters
    return previous


def current_engine() -> EngineParameters:
    """Return the setting that :func:`map_work` uses."""
    return _engine


def map_work(
    function: Callable[[Item], Made],
    items: Sequence[Item],
    *,
    finish: Callable[[Made], Result] | None = None,
    label: str = "",
    sizes: Sequence[int] | None = None,
    unit: str = "items",
) -> Iterator[tuple[int, Result]]:
    """Apply a pure function to items, wherever the environment says.

    Parameters
    ----------
    function : callable
        Picklable for a cluster (a function of a module, or a ``functools.partial`` of one).
    items : sequence
    finish : callable, optional
        The rest of the work on what ``function`` made, where the result is then this one's: done where
        ``function`` was done, but in ``serial`` by other threads while it goes on with the next items. What
        is made in between may be large.
    label : str
        Shown with the progress bar, on a terminal only.
    sizes : sequence of int, optional
        How much of the whole each item is, in ``unit``, for the rate and the time left. One each when not
        given.

    Yields
    ------
    (int, result)
        Index of the item and its result, as they are completed: in order from ``serial``, in any order
        otherwise.

    Raises
    ------
    EngineError
        If the cluster cannot be reached or a worker dies. What the function raises comes through as it is;
        work not begun is then given up.
    """
    runners = {"serial": _map_serial, "threads": _map_threads, "dask": _map_dask}
    results = runners[_engine.kind](function, _nothing_more if finish is None else finish, items, _engine)
    weights = [1] * len(items) if sizes is None else list(sizes)
    done = 0
    with progress_bar(label, sum(weights), unit) as advance:
        for index, result in results:
            done += weights[index]
            advance(done)
            yield index, result


def _nothing_more(made: Any) -> Any:
    return made


def _in_one(function: Callable[[Item], Made], finish: Callable[[Made], Result], item: Item) -> Result:
    return finish(function(item))


def _map_serial(
    function: Callable[[Item], Made],
    finish: Callable[[Made], Result],
    items: Sequence[Item],
    parameters: EngineParameters,
) -> Iterator[tuple[int, Result]]:
    if finish is _nothing_more:
        for index, item in enumerate(items):
            yield index, finish(function(item))
        return
    threads = max(1, min(_FINISHING_THREADS, (os.cpu_count() or 1) // 2))
    pending: deque[tuple[int, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for index, item in enumerate(items):
                made = function(item)
                if len(pending) == threads:
                    first, future = pending.popleft()
                    yield first, future.result()
                pending.append((index, pool.submit(finish, made)))
                del made
            for first, future in pending:
                yield first, future.result()
        finally:
            for _, future in pending:
                future.cancel()


def _map_threads(
    function: Callable[[Item], Made],
    finish: Callable[[Made], Result],
    items: Sequence[Item],
    parameters: EngineParameters,
) -> Iterator[tuple[int, Result]]:
    """Keep few items in flight, so that results do not pile up when they are taken slowly."""
    pending: dict[Future[Result], int] = {}
    remaining = iter(enumerate(items))
    with ThreadPoolExecutor(parameters.workers) as pool:
        try:
            while True:
                while len(pending) < _IN_FLIGHT_PER_WORKER * parameters.workers:
                    entry = next(remaining, None)
                    if entry is None:
                        break
                    pending[pool.submit(_in_one, function, finish, entry[1])] = entry[0]
                if not pending:
                    return
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    yield pending.pop(future), future.result()
        finally:
            for future in pending:
                future.cancel()


def _map_dask(
    function: Callable[[Item], Made],
    finish: Callable[[Made], Result],
    items: Sequence[Item],
    parameters: EngineParameters,
) -> Iterator[tuple[int, Result]]:
    """``client.map`` with ``as_completed``: unlike joblib on Dask it raises when workers die, and never hangs."""
    client, distributed = _dask_client(parameters.model_dump_json())
    futures = client.map(partial(_in_one, function, finish), list(items), pure=False, retries=1)
    index_of = {future.key: index for index, future in enumerate(futures)}
    try:
        for future in _completed(client, distributed, futures, parameters):
            index = index_of[future.key]
            try:
                result = future.result()
            except distributed.KilledWorker as error:
                raise EngineError(
                    f"The worker that did item {index} died more than once ({error}); see its log: most "
                    "often it ran out of memory. What was completed stays."
                ) from error
            except (OSError, CancelledError) as error:
                # A closed connection is told before the client itself has noticed that the scheduler is gone.
                closed = isinstance(error, distributed.comm.CommClosedError)
                if client.status == "running" and not closed:
                    raise
                raise EngineError(
                    f"The Dask scheduler is gone ({error}). What was completed stays; run again to go on."
                ) from error
            yield index, result
            future.release()
    finally:
        client.cancel(futures)


def _completed(
    client: Any, distributed: Any, futures: Sequence[Any], parameters: EngineParameters
) -> Iterator[Any]:
    """Give futures as they are done; ``as_completed`` alone waits without end where no worker is left to do them.

    Raises
    ------
    EngineError
        If there was no worker, or no answer of the scheduler, for ``timeout_s``.
    """
    completed = distributed.as_completed(futures, loop=client.loop)
    seen = time.monotonic()
    while completed.count():
        if completed.has_ready():
            yield next(completed)
            seen = time.monotonic()
            continue
        time.sleep(_POLL_S)
        if time.monotonic() - seen < min(_LOOK_EVERY_S, parameters.timeout_s / 4):
            continue
        waited = time.monotonic() - seen
        if _n_workers(client):
            seen = time.monotonic()
        elif waited > parameters.timeout_s:
            raise EngineError(
                f"The Dask cluster at {parameters.address or 'SLURM'} has had no worker for {waited:.0f} s "
                "(timeout_s). What was completed stays: start workers and run again; their logs say why "
                "they ended, most often for lack of memory."
            )


def _n_workers(client: Any) -> int:
    """Workers that the scheduler knows now; none if it does not answer."""
    try:
        return len(client.sync(client.scheduler.ncores, callback_timeout=_LOOK_EVERY_S))
    except (OSError, TimeoutError, ValueError, CancelledError):
        return 0


@lru_cache(maxsize=1)
def _dask_client(parameters_json: str) -> tuple[Any, Any]:
    """Connect once in the process, and make sure that the workers can import this package."""
    parameters = EngineParameters.model_validate_json(parameters_json)
    try:
        import distributed  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError(
            "engine kind: dask needs Dask; install the extra: pip install 'helix-sae[cluster]'."
        ) from error
    address: Any = parameters.address
    try:
        if parameters.slurm is not None:
            from dask_jobqueue.slurm import SLURMCluster  # noqa: PLC0415 - an extra

            address = SLURMCluster(**parameters.slurm)
            address.scale(jobs=parameters.workers)
            atexit.register(address.close)
        client = distributed.Client(address, timeout=parameters.timeout_s, set_as_default=False)
        client.wait_for_workers(parameters.workers, timeout=parameters.timeout_s)
        client.submit(_preflight, pure=False).result(timeout=parameters.timeout_s)
    except (OSError, TimeoutError, ImportError, RuntimeError) as error:
        # A scheduler that cannot import this package raises a RuntimeError when it unpacks the work.
        where = parameters.address or "SLURM"
        raise EngineError(
            f"The Dask cluster at {where} did not give {parameters.workers} worker(s) that can import "
            f"helix_sae within {parameters.timeout_s:g} s ({error}). Start it, or set engine kind: serial."
        ) from error
    atexit.register(client.close)
    return client, distributed


def _preflight() -> str:
    """Run on a worker: unpickling it imports this package there."""
    return sys.version
