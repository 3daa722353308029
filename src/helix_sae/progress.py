"""Progress bars that show on a terminal and stay quiet everywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

Listener = Callable[[str], None]
_listeners: list[Listener] = []


@contextmanager
def progress_goes_to(listener: Listener) -> Iterator[None]:
    """Within the block, progress is told to ``listener`` in words, and no bars are drawn."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.pop()


@contextmanager
def progress_bar(label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show a bar with the rate and the time left while the block runs.

    Parameters
    ----------
    label : str
        What is being done.
    total : int
        Of the units.
    unit : str
        What is counted.

    Yields
    ------
    callable
        Call it with the number done so far.
    """
    if _listeners:
        yield partial(_tell, _listeners[-1], label, total, time.monotonic())
        return
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(label, total=total, rate=unit)

        def advance(done: int) -> None:
            speed = progress.tasks[0].speed
            progress.update(task, completed=done, rate=unit if speed is None else f"{speed:,.0f} {unit}/s")

        yield advance


def _tell(listener: Listener, label: str, total: int, began: float, done: int) -> None:
    """Say how far something is, and how long it will go on at its rate so far."""
    seconds = time.monotonic() - began
    left = f", {seconds * (total - done) / done:,.0f} s left" if done and done < total else ""
    listener(f"{label} {done / max(1, total):.0%}{left}")
