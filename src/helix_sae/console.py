"""One line a stage on the terminal, with progress and the time left, while the log goes elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from helix_sae.progress import progress_goes_to


class Stages:
    """The stages of one run, each a pipeline.

    Parameters
    ----------
    console : rich.console.Console
    titles : mapping of str to str
        What each stage is called, by the name of its pipeline, in the order in which they are shown.
    """

    def __init__(self, console: Any, titles: Mapping[str, str]) -> None:
        from rich.progress import (  # noqa: PLC0415 - slow to import
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        self.console = console
        self.titles = titles
        self.progress = Progress(
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[doing]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._stage_of: dict[str, str] = {}
        self._left: dict[str, int] = {}
        self._tasks: dict[str, Any] = {}
        self._unprinted: list[str] = []

    def plan(self, pipeline: Pipeline, stages: Mapping[str, Pipeline]) -> None:
        """Note which node belongs to which stage."""
        for title in self.titles:
            names = {node.name for node in stages.get(title, Pipeline([])).nodes}
            mine = [node.name for node in pipeline.nodes if node.name in names]
            if not mine:
                continue
            self._stage_of.update(dict.fromkeys(mine, title))
            self._left[title] = len(mine)
            self._unprinted.append(title)
            self._tasks[title] = self.progress.add_task(
                self.titles[title], total=len(mine), start=False, doing=""
            )

    def begin(self, node: str) -> None:
        """Say which step has begun."""
        stage = self._stage_of.get(node)
        if stage is None:
            return
        # Stages take turns; each clock runs during its own steps only.
        task = self.progress.tasks[self._tasks[stage]]
        task.start_time, task.stop_time = time.monotonic() - (task.elapsed or 0.0), None
        self.progress.update(self._tasks[stage], doing=node.rpartition(".")[2].replace("_", " "))

    def end(self, node: str) -> None:
        """Count a step; where the output is no terminal, print a line when its stage and those before are done."""
        stage = self._stage_of.get(node)
        if stage is None:
            return
        self._left[stage] -= 1
        task = self.progress.tasks[self._tasks[stage]]
        task.stop_time = time.monotonic()
        self.progress.update(self._tasks[stage], advance=1)
        if self._left[stage] == 0:
            self.progress.update(self._tasks[stage], doing="")
            if not self.console.is_terminal:
                self._print_done()

    def _print_done(self) -> None:
        """A line for each stage that is done and was not printed, in order: a later one may end before an earlier."""
        for stage in list(self._unprinted):
            if self._left[stage]:
                return
            elapsed = self.progress.tasks[self._tasks[stage]].elapsed or 0.0
            self.console.print(f"{self.titles[stage]:<34} {elapsed:5.0f} s", highlight=False)
            self._unprinted.remove(stage)

    def within(self, text: str) -> None:
        """Show how far a long step is."""
        running = [stage for stage, left in self._left.items() if left and self._has_begun(stage)]
        if running:
            self.progress.update(self._tasks[running[-1]], doing=text)

    def _has_begun(self, stage: str) -> bool:
        return self.progress.tasks[self._tasks[stage]].started


_shown: list[Stages] = []
"""The stages that are on the terminal; none under plain ``kedro run``."""


@contextmanager
def show_stages(stages: Stages) -> Iterator[None]:
    """Put stages on the terminal while the block runs."""
    _shown.append(stages)
    try:
        with stages.progress, progress_goes_to(stages.within):
            yield
    finally:
        _shown.pop()


def shown_stages() -> Stages | None:
    """The stages on the terminal, if there are any."""
    return _shown[-1] if _shown else None


class ConsoleHooks:
    """Tell the stages on the terminal what runs; says nothing where there are none.

    A step ends when the last of its outputs is saved: activations and codes are made while they are.
    """

    def __init__(self) -> None:
        self._unsaved: dict[str, set[str]] = {}

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline) -> None:
        """Lay out the stages."""
        from kedro.framework.project import pipelines  # noqa: PLC0415 - known only once a project is configured

        if (stages := shown_stages()) is not None:
            stages.plan(pipeline, {name: pipelines[name] for name in pipelines})

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """A step begins."""
        if (stages := shown_stages()) is not None:
            self._unsaved[node.name] = set(node.outputs)
            stages.begin(node.name)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """One of its outputs is saved; with the last one it is done."""
        if (stages := shown_stages()) is not None and node.name in self._unsaved:
            self._unsaved[node.name].discard(dataset_name)
            if not self._unsaved[node.name]:
                del self._unsaved[node.name]
                stages.end(node.name)
