"""The report of a run as one self-contained HTML page, and its short form for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from helix_sae.reporting import pages
from helix_sae.reporting.document import Column, Prose, ReportFigure, ReportTable, Section

_WIDTH = 100
_MARKS = {"finding": "•", "weak": "◦", "absent": "–"}


def render_report(
    sections: Sequence[Section],
    *,
    title: str,
    subtitle: str,
    atlas: str | None = None,
    cards: Mapping[str, str] | None = None,
) -> str:
    """All sections as one HTML page: no script, no network, figures embedded.

    Parameters
    ----------
    sections : sequence of Section
    title, subtitle : str
    atlas : str, optional
        Where the feature atlas lies, in words.
    cards : mapping of feature's name to link, optional
        The features that are links to their cards wherever the page names them.
    """
    return pages.render(
        "run_report.html.j2",
        title=title,
        subtitle=subtitle,
        atlas=atlas,
        cards=cards,
        sections=_numbered(sections, cards or {}),
        headlines=[s for section in sections for s in section.statements if s.headline],
        tiles=[tile for section in sections for tile in section.tiles],
        warnings=[(section.title, w) for section in sections for w in section.warnings],
        not_run=[section for section in sections if all(s.tone == "absent" for s in section.statements)],
    )


def render_text(sections: Sequence[Section], places: Mapping[str, str] | None = None) -> str:
    """The headlines and warnings as plain text, and where everything lies.

    Parameters
    ----------
    sections : sequence of Section
    places : mapping of name to path, optional
        E.g. ``{"Report": "data/08_reporting/run_report.html"}``.
    """
    lines = ["What was found", ""]
    for section in sections:
        shown = [s for s in section.statements if s.headline or s.tone == "absent"]
        shown = [s for s in shown if s.headline] or shown
        if not shown:
            continue
        lines.append(section.title)
        for statement in shown:
            lines += textwrap.wrap(
                statement.text,
                _WIDTH,
                initial_indent=f"  {_MARKS[statement.tone]} ",
                subsequent_indent="    ",
            )
    warnings = [w for section in sections for w in section.warnings]
    if warnings:
        lines += ["", "Warnings"]
        for text in warnings:
            lines += textwrap.wrap(text, _WIDTH, initial_indent="  ! ", subsequent_indent="    ")
    if places:
        longest = max(len(name) for name in places)
        lines += ["", "Where it lies", *(f"  {name:<{longest}}  {path}" for name, path in places.items())]
    return "\n".join(lines) + "\n"


def _numbered(sections: Sequence[Section], cards: Mapping[str, str]) -> list[dict[str, Any]]:
    """Sections for the template, with figures and tables counted through, and the features that figures name."""
    n_figures = n_tables = 0
    shown: list[dict[str, Any]] = []
    for section in sections:
        blocks: list[dict[str, Any]] = []
        for block in section.blocks:
            if isinstance(block, ReportFigure):
                n_figures += 1
                named = [word for word in block.words if word in cards]
                blocks.append({"kind": "figure", "number": n_figures, "figure": block, "named": named})
            elif isinstance(block, ReportTable):
                n_tables += 1
                blocks.append({"kind": "table", "number": n_tables, "table": block, "cells": _cells(block)})
            elif isinstance(block, Prose):  # pyright: ignore[reportUnnecessaryIsInstance]
                blocks.append({"kind": "prose", "text": block.text})
        shown.append({"section": section, "blocks": blocks})
    return shown


def _cells(table: ReportTable) -> list[list[tuple[Column, Any]]]:
    return [list(zip(table.columns, row, strict=True)) for row in table.rows]
