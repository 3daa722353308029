"""The pages that are made from the code hold what the code says."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from pydantic import BaseModel, Field


@pytest.fixture(scope="module")
def made_pages(project_path: Path) -> ModuleType:
    sys.path.insert(0, str(project_path / "docs"))
    try:
        import made_pages
    finally:
        sys.path.remove(str(project_path / "docs"))
    return made_pages


class Inner(BaseModel):
    """The inner group.

    Attributes
    ----------
    share : float
        A ``share`` of
        something.
    """

    share: float = Field(0.5, gt=0, le=1)


class Outer(BaseModel):
    """The outer one.

    Attributes
    ----------
    inner : Inner
        What lies below.
    n, m : int
        Two numbers | more.
    """

    inner: Inner = Inner(share=0.5)
    n: int
    m: int | None = None


def test_a_table_of_parameters_says_key_bounds_value_and_meaning(made_pages: ModuleType) -> None:
    rows = list(made_pages._rows(Outer, "outer", {"inner": {"share": 0.25}}, {}))
    assert rows == [
        "| `outer.inner` | a group |  | What lies below. |",
        "| `outer.inner.share` | float, > 0, ≤ 1 | `0.25` | A `share` of something. |",
        "| `outer.n` | int | *has to be given* | Two numbers \\| more. |",
        "| `outer.m` | int or `null` | `null` | Two numbers \\| more. |",
    ]


def test_every_parameter_of_every_pipeline_is_described(made_pages: ModuleType) -> None:
    rows = [line for line in made_pages.parameters().splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    silent = [row for row in rows if row.endswith("|  |")]
    assert silent == []


def test_messages_are_found_with_the_places_that_are_filled_in(made_pages: ModuleType) -> None:
    source = """
def f(x):
    if x:
        raise DataError(f"{x} is not a number;" " give one.")
    raise ModelError("No " + x)
    raise
"""
    assert sorted(made_pages.raised_messages(source)) == [
        ("DataError", "… is not a number; give one."),
        ("ModelError", "No …"),
    ]


def test_the_catalogue_holds_every_class_of_error_and_messages_of_each_kind(made_pages: ModuleType) -> None:
    page = made_pages.error_catalogue()
    for name in ("HelixSaeError", "DataError", "ConfigurationError", "UnknownSiteError", "EngineError"):
        assert f"\n## {name}\n" in page
    assert page.count("<br>*in*") > 150


def test_the_dictionary_holds_every_entry_of_the_catalogs(made_pages: ModuleType, project_path: Path) -> None:
    page = made_pages.data_dictionary()
    for name in (
        "mrna_table",
        "activations",
        "sae_checkpoints",
        "associations",
        "feature_effects",
        "run_report",
    ):
        assert f"| `{name}` |" in page


def test_a_schema_becomes_a_table_of_its_columns(made_pages: ModuleType) -> None:
    column = SimpleNamespace(
        kind="number", meaning="A ``share``.", unit="nt", low=0.0, high=None, nullable=True
    )
    table = SimpleNamespace(meaning="One place.", columns={"start": column})
    assert made_pages.schema_section("places", table) == [
        "### places\n",
        "One place.\n",
        "| column | type | unit | meaning |",
        "|---|---|---|---|",
        "| `start` | number, ≥ 0, may be missing | nt | A `share`. |",
        "",
    ]


def test_a_page_that_has_not_changed_keeps_its_time(
    made_pages: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for page in ("parameters", "data_dictionary", "error_catalogue"):
        monkeypatch.setattr(made_pages, page, lambda: "# A page\n")
    monkeypatch.setattr(made_pages, "api", lambda: {"api.md": "# API\n"})
    (tmp_path / "gone.md").write_text("a page of before")
    made_pages.write(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    made_pages.write(tmp_path)
    assert set(before) == {"parameters.md", "data_dictionary.md", "errors.md", "api.md"}
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
