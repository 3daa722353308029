"""Progress bars: the rate and the time left on a terminal, nothing elsewhere."""

from __future__ import annotations

import io
import time

import pytest
import rich.console
from kedro.pipeline import Pipeline, node

from helix_sae.console import ConsoleHooks, Stages, show_stages
from helix_sae.progress import progress_bar


def shown(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> str:
    stream, console_class = io.StringIO(), rich.console.Console

    def console(**_: object) -> rich.console.Console:
        return console_class(file=stream, force_terminal=is_terminal, width=120)

    monkeypatch.setattr("rich.console.Console", console)
    with progress_bar("activations", 3_000, "tokens") as advance:
        for done in (1_000, 2_000, 3_000):
            time.sleep(0.12)
            advance(done)
    return stream.getvalue()


def test_a_terminal_sees_what_is_done_how_fast_and_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, is_terminal=True)
    assert "activations" in text
    assert "3000/3000" in text
    assert "tokens/s" in text
    assert "0:00:00" in text


def test_anything_else_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, is_terminal=False) == ""


def test_the_clock_of_a_stage_runs_during_its_own_steps_only() -> None:
    """Steps of two stages take turns; one that waits is not said to be slow, and lines come in order."""
    stream = io.StringIO()
    stages = Stages(rich.console.Console(file=stream), {"a": "First", "b": "Second"})
    steps = {name: node(len, name, f"{name}_out", name=name) for name in ("a1", "b1", "a2")}
    stages.plan(
        Pipeline(list(steps.values())),
        {"a": Pipeline([steps["a1"], steps["a2"]]), "b": Pipeline([steps["b1"]])},
    )
    for name, seconds in (("a1", 0.0), ("b1", 0.6), ("a2", 0.0)):
        stages.begin(name)
        stages.within("half")
        time.sleep(seconds)
        stages.end(name)
    assert [line.split() for line in stream.getvalue().splitlines()] == [
        ["First", "0", "s"],
        ["Second", "1", "s"],
    ]


def test_a_step_ends_with_the_last_of_its_outputs() -> None:
    """Activations are made while they are saved, which is no time of nobody's."""
    stream = io.StringIO()
    stages = Stages(rich.console.Console(file=stream), {"a": "First"})
    step = node(lambda x: (x, x), "x", ["y", "z"], name="a1")
    stages.plan(Pipeline([step]), {"a": Pipeline([step])})
    hooks = ConsoleHooks()
    with show_stages(stages):
        hooks.before_node_run(step)
        hooks.after_dataset_saved("y", step)
        assert not stream.getvalue()
        time.sleep(0.6)
        hooks.after_dataset_saved("z", step)
    assert stream.getvalue().split() == ["First", "1", "s"]
