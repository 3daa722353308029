"""One thread for the model: requests take turns, and the work of a client that has gone away stops.

A model is read and edited through hooks on its modules, so two passes at once would see each other's.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.requests import Request

from helix_sae.explorer.limits import TooOftenError
from helix_sae.explorer.session import Check

T = TypeVar("T")


class ClientGoneError(Exception):
    """Nobody waits for this answer any more."""


class Worker:
    """Runs functions one after the other, for as long as their client waits.

    Parameters
    ----------
    waiting : int
        Requests that may wait.

    Attributes
    ----------
    stopped : int
        Work that was stopped, or never begun, because its client went away.
    """

    def __init__(self, waiting: int) -> None:
        self._most, self._now, self.stopped = waiting, 0, 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    def close(self) -> None:
        """Let the thread end; what waits is not begun."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def run(self, request: Request, function: Callable[[Check], T]) -> T:
        """What a function gives, when its turn has come.

        Parameters
        ----------
        request : Request
            Its client is watched; the body has to be read already.
        function : callable
            Takes a function that it calls between the parts of its work, and that stops it.

        Raises
        ------
        TooOftenError
            If too many wait.
        ClientGoneError
            If the client went away.
        """
        if self._now >= self._most:
            raise TooOftenError(f"{self._now} requests wait already; ask again in a few seconds.")
        gone = threading.Event()

        def check() -> None:
            if gone.is_set():
                raise ClientGoneError

        def work() -> T:
            check()
            return function(check)

        self._now += 1
        watched = asyncio.create_task(_until_gone(request))
        done = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            await asyncio.wait({done, watched}, return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                gone.set()
                done.cancel()
                self.stopped += 1
                raise ClientGoneError
            return done.result()
        finally:
            gone.set()
            watched.cancel()
            self._now -= 1


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
