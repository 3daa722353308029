"""The run report: everything that the sections hold is on the page, as text, and the page needs nothing else."""

from __future__ import annotations

import base64
import re
from functools import partial

import pandas as pd
import pytest
import report_data
import report_tables as tables
from html_checks import HOSTILE, Page, self_contained
from hypothesis import given
from hypothesis import strategies as st

from helix_sae.reporting.document import (
    Column,
    Prose,
    ReportFigure,
    ReportTable,
    Section,
    Statement,
    Tile,
    not_run,
)
from helix_sae.reporting.drawings import Whisker, png_uri
from helix_sae.reporting.pages import anchor, escaped
from helix_sae.reporting.run_report import render_report, render_text
from helix_sae.reporting.sections import (
    association_section,
    autoencoder_section,
    circuit_section,
    comparison_section,
    concept_section,
    data_section,
    effect_section,
    prediction_section,
)

PIXEL = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n not really").decode()
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)


def sections(text: str = "plain") -> list[Section]:
    """One section with everything that a section can hold, one that was not run; ``text`` wherever there is text."""
    columns = [
        Column(text),
        Column("n", "number"),
        Column("c", "code"),
        Column("w", "whisker"),
        Column("y", "yes"),
    ]
    rows = [
        [text, "1", text, Whisker(10, 20, 30, 5), True],
        [text, "2", text, None, False],
        [text, "3", text, None, None],
    ]
    return [
        Section(
            "first",
            text,
            [
                Statement(text, headline=True),
                Statement(f"weak {text}", "weak", headline=True),
                Statement(f"aside {text}"),
            ],
            [
                Prose(text),
                ReportTable(text, columns, rows),
                ReportFigure("figure-1", text, text, PIXEL, 6.0),
                ReportTable("second table", columns, rows),
                ReportFigure("figure-2", "second figure", text, PIXEL, 3.0),
            ],
            {"n": 1},
            [Tile(text, text, text), Tile("weak tile", "0", "", weak=True)],
            [f"beware {text}"],
        ),
        not_run("second", "Second", f"Was not run: {text}"),
    ]


def report(text: str = "plain") -> str:
    return render_report(sections(text), title=text, subtitle=text, atlas=text)


def test_the_page_holds_everything_once_or_where_it_is_repeated():
    page = self_contained(report())
    assert page.title == "plain"
    assert [a["class"] for a in page.all("li") if "class" in a] == [
        "finding",
        "weak",
        "finding",
        "weak",
        "finding",
        "absent",
    ]
    assert [a["href"] for a in page.all("a")] == ["#first", "#second"]
    assert page.ids == ["first", "figure-1", "figure-2", "second"]
    assert re.findall(r"(?:Figure|Table) \d", page.text) == ["Table 1", "Figure 1", "Table 2", "Figure 2"]
    assert page.text.count("aside plain") == 1
    assert page.text.count("weak plain") == 2  # in short, and in its section
    assert page.text.count("beware plain") == 1
    assert page.text.count("Was not run: plain") == 1
    assert len(page.all("svg")) == 2  # a whisker in each table; none where there is no estimate
    assert [len(page.all("span", class_=c)) for c in ("yes", "no")] == [2, 2]
    assert [a["style"] for a in page.all("img")] == ["width: 38.4rem", "width: 19.2rem"]
    assert [
        a["class"] for a in page.all("div") if a.get("class", "").startswith("tile") and a["class"] != "tiles"
    ] == ["tile", "tile weak"]


def test_features_that_a_figure_names_are_linked_below_it():
    (first, second) = sections()
    figure = ReportFigure(
        "figure-9", "effects", "a caption.", PIXEL, 6.0, ("L0.mixer.3", "effect", "L0.mixer.4")
    )
    named = first._replace(blocks=[figure])
    cards = {"L0.mixer.3": "atlas/index.html#L0.mixer.3"}
    html = render_report([named, second], title="t", subtitle="s", cards=cards)
    page = self_contained(html, beside=[*cards.values()])
    assert [a["href"] for a in page.all("a")] == ["#first", "#second", "atlas/index.html#L0.mixer.3"]
    assert "a caption. Cards: L0.mixer.3" in " ".join(page.text.split())
    assert "L0.mixer.4" not in page.text


def test_nothing_that_is_hostile_gets_out_of_its_place():
    page = self_contained(report(HOSTILE))
    assert page.title == HOSTILE
    once = " ".join(HOSTILE.split())
    assert page.text.count(once) == self_contained(report("pl ain")).text.count("pl ain")
    assert {a["alt"] for a in page.all("img")} == {HOSTILE, "second figure"}
    assert HOSTILE not in page.html


@given(ANY_TEXT)
def test_any_text_is_text(text: str):
    page = Page(report(text + "."))
    assert [t for t, _ in page.elements] == [t for t, _ in Page(report("x")).elements]
    assert page.title.split() == (text + ".").split()


@given(ANY_TEXT)
def test_escaped_text_reads_back(text: str):
    page = Page(f'<p title="{escaped(text)}">{escaped(text)}.</p>')
    assert page.elements == [("p", {"title": text})]
    assert "".join(page.texts) == text + "."


@given(st.text(max_size=12), st.integers(0, 9999))
def test_anchors_are_plain(site: str, feature: int):
    assert re.fullmatch(r"[\w.\-]*", anchor(site, feature))
    assert anchor(site, feature).endswith(f".{feature}")


def test_named_features_are_links_to_their_cards():
    hostile = f"{HOSTILE}.7"
    place = "atlas/index.html#"
    cards = {"L4.mixer.69": f"{place}L4.mixer.69", hostile: f"{place}hostile.7"}
    told = f"Best is L4.mixer.69. Others: L4.mixer.693, XL4.mixer.69, L4.mixer.69.1 and {hostile}, a < b"
    table = ReportTable(
        "Of L4.mixer.69", (Column("Feature", "code"), Column("x")), [("L4.mixer.69", hostile)]
    )
    section = Section(
        "a", "A", [Statement(told)], [table, Prose(hostile)], tiles=[Tile("t", "L4.mixer.69", hostile)]
    )
    page = self_contained(render_report([section], title="t", subtitle="s", cards=cards), cards.values())
    links = [a["href"] for a in page.all("a") if a["href"].startswith(place)]
    assert links.count(cards["L4.mixer.69"]) == 4
    assert links.count(cards[hostile]) == 4
    assert HOSTILE not in page.html
    plain = self_contained(render_report([section], title="t", subtitle="s"))
    assert "".join(page.texts) == "".join(plain.texts)


def hostile_sections() -> list[Section]:
    """The real sections, with hostile names of everything that a user's files or parameters name."""
    bad, column = HOSTILE, f"functional_{HOSTILE}"
    table = report_data.table().head(60).rename(columns={"functional_mrl": column})
    table = table.assign(source=bad, sequence_id=[f"{bad}{i}" for i in range(len(table))], cluster=bad)
    given = tables.association_inputs()
    renamed = {
        name: getattr(given, name).replace({"functional_p0": column})
        for name in ("associations", "significant", "best_matches")
    }
    warnings = pd.DataFrame({"property": [bad], "warning": [bad], "detail": [bad]})
    matches, baselines = (t.assign(concept=t["concept"] + bad) for t in tables.concepts())
    missing = pd.DataFrame({"source_id": [bad], "target_id": [bad], "reason": [bad]})
    named = tables.metrics().assign(config=bad)
    return [
        data_section(table, tables.rejected().assign(field=bad, reason=bad, record=bad, file=bad), tables.facts(source=bad)),
        autoencoder_section(named, pd.concat([tables.history(), tables.history().assign(config=bad)]), tables.densities(), chosen=bad),
        association_section(given._replace(**renamed, warnings=warnings)),
        concept_section(matches, baselines, warnings.rename(columns={"property": "concept"}), tables.profiles().assign(name=bad)),
        prediction_section(
            tables.probe(target=column), tables.pairs().assign(kind=bad, difference_kind=bad), missing,
            tables.agreement(), tables.comparison(),
        ),
        effect_section(tables.effect_inputs(), target=column),
        comparison_section(tables.comparison_inputs()),
        circuit_section(tables.circuit(), tables.steps()),
    ]  # fmt: skip


def test_the_real_sections_with_hostile_names(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("helix_sae.reporting.document.png_uri", partial(png_uri, dpi=30))
    made = hostile_sections()
    page = self_contained(render_report(made, title=HOSTILE, subtitle=HOSTILE, atlas=HOSTILE))
    assert HOSTILE not in page.html
    assert [a["id"] for a in page.all("section") if "id" in a] == [section.key for section in made]
    pictures = [a["src"] for a in page.all("img")]
    assert len(pictures) >= 12
    assert all(base64.b64decode(uri.split(",")[1]).startswith(b"\x89PNG") for uri in pictures)


def test_the_same_sections_give_the_same_page():
    made = [
        prediction_section(tables.probe(), tables.pairs(), None, tables.agreement(), tables.comparison())
        for _ in range(2)
    ]
    first, second = (render_report([section], title="t", subtitle="s") for section in made)
    assert first == second


def test_a_run_in_which_nothing_was_run():
    made = [not_run(f"part-{i}", f"Part {i}", f"Nothing {i}.") for i in range(3)]
    page = self_contained(render_report(made, title="t", subtitle="s"))
    assert page.text.count("Nothing 1.") == 1
    assert "Before you rely on this" not in page.text
    assert "feature atlas" not in page.text
    assert page.all("div", class_="tiles") == []


class TestText:
    def test_headlines_warnings_and_places(self):
        text = render_text(sections(), {"Report": "data/report.html", "Feature atlas": "data/atlas.html"})
        lines = text.splitlines()
        assert lines[0] == "What was found"
        assert "  • plain" in lines
        assert "  ◦ weak plain" in lines
        assert "aside" not in text
        assert "  – Was not run: plain" in lines
        assert "  ! beware plain" in lines
        assert "  Report         data/report.html" in lines
        assert "  Feature atlas  data/atlas.html" in lines
        assert text.endswith("\n")

    def test_a_section_without_headlines_is_left_out(self):
        made = [Section("a", "Quiet", [Statement("By the way.")]), *sections()]
        assert "Quiet" not in render_text(made, {})

    def test_long_sentences_are_wrapped(self):
        text = render_text(
            [Section("a", "A", [Statement("word " * 60, headline=True)], warnings=["beware " * 40])], {}
        )
        assert max(map(len, text.splitlines())) <= 100
        assert text.count("word") == 60

    def test_nothing_found_at_all(self):
        assert render_text([], {}) == "What was found\n\n"
