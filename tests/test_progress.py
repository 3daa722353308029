"""Progress bars: the rate and the time left on a terminal, nothing elsewhere."""

from __future__ import annotations

import io
import time

import pytest
import rich.console

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
