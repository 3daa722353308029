"""Pages that name the test of each of their sentences name tests that are there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

_NAMED = re.compile(r"`(test_\w+)((?:::\w+)*)`")
"""``test_module``, ``test_module::test_name`` or ``test_module::TestClass::test_name``."""


def named(page: str) -> list[tuple[str, str]]:
    """Modules and the tests in them that a page names; no test where the whole module is meant."""
    return [(module, name.removeprefix("::")) for module, name in _NAMED.findall(page)]


def inside(folder: Path, module: str) -> Iterator[str]:
    """Names of all tests in files of this name; the empty name is that of the module."""
    for file in folder.rglob(f"{module}.py"):
        yield ""
        for found in ast.parse(file.read_text(encoding="utf-8")).body:
            inner = found.body if isinstance(found, ast.ClassDef) else [found]
            prefix = f"{found.name}::" if isinstance(found, ast.ClassDef) else ""
            yield from (
                f"{prefix}{one.name}"
                for one in inner
                if isinstance(one, ast.FunctionDef) and one.name.startswith("test_")
            )


def missing(page: str, folder: Path) -> list[str]:
    return [f"{module}::{name}" for module, name in named(page) if name not in set(inside(folder, module))]


@pytest.mark.parametrize("page", ["promises.md", "trust.md"])
def test_the_tests_of_a_page_are_there(project_path: Path, page: str) -> None:
    content = (project_path / "docs" / page).read_text(encoding="utf-8")
    assert len(named(content)) > 10
    assert missing(content, project_path / "tests") == []


def test_every_promise_has_its_test(project_path: Path) -> None:
    """Eighteen rows of what was once wrong, and what holds each."""
    content = (project_path / "docs" / "promises.md").read_text(encoding="utf-8")
    rows = [line for line in content.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 18
    for row in rows:
        assert named(row.split("|")[-2]), row


def test_a_test_that_is_not_there_is_noticed(project_path: Path) -> None:
    page = "`test_promises`, `test_promises::test_x`, `test_nowhere`, `test_promises::TestX::test_y`, `test_sections::TestData::test_the_counts_are_those_of_the_table`"
    assert missing(page, project_path / "tests") == [
        "test_promises::test_x",
        "test_nowhere::",
        "test_promises::TestX::test_y",
    ]
