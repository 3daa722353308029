"""The explorer in a real browser: paste, edit, map, intervene, search by example; for everyone, and whatever is pasted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import report_data
from explorer_toys import shipped_session
from kedro_runs import FinishedRun
from served import Server, serving

from helix_sae.commands.serve import open_served
from helix_sae.reporting.atlas import AtlasTables, feature_pages
from helix_sae.reporting.atlas_folder import atlas_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PHONE, SCREEN = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
SEQUENCE = "GGGACATCGTAGAGAGTCGTACTTAATGCCGATTTAGGCGATCGACGTCACC|ATGGGCGAAGAATTCAACGGTTAA"
HOSTILE = "<img/src=x/onerror=alert(1)>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pages = tmp_path_factory.mktemp("latest")
    (pages / "atlas").mkdir()
    (pages / "atlas" / "index.html").write_text("<title>Atlas</title><p>atlas</p>", encoding="utf-8")
    session = shipped_session()
    table = pd.DataFrame(
        {
            "sequence_id": ["first", HOSTILE],
            "sequence": [SEQUENCE.replace("|", "").replace("T", "U"), "ACGAUGGCC"],
        }
    ).assign(cds_start=[SEQUENCE.index("|"), None], cds_end=None, functional_mrl=[6.25, None])
    known = pd.DataFrame({"name": list(session.by_name)})
    with serving(dataclasses.replace(session, table=table, about=known), run_pages=pages) as one:
        yield one


class Visitor:
    """Somebody at the page, and all that the browser complains of."""

    def __init__(self, browser: Any, url: str, says: str = "Ready", **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.page.set_default_timeout(120_000)
        self.told: list[str] = []
        self.page.on("console", lambda message: self.told.append(message.text))
        self.page.on("pageerror", lambda error: self.told.append(str(error)))
        self.page.on("dialog", lambda dialog: self.told.append(f"dialog {dialog.message}"))
        self.page.goto(url)
        self.says(says)

    def says(self, text: str) -> None:
        self.page.wait_for_function(
            "text => document.getElementById('status').textContent.startsWith(text)", arg=text
        )

    def read(self, text: str, start: str = "find") -> None:
        self.page.fill("#text", text)
        self.page.select_option("#start", start)
        self.page.click("#paste button[type=submit]")
        self.says("Read ")


def test_a_visit(browser: Any, server: Server) -> None:
    """Paste, choose a feature, edit, map all substitutions, make one, intervene, search; then come back by the link."""
    visitor = Visitor(browser, server.url, viewport=SCREEN)
    page = visitor.page
    visitor.read(SEQUENCE)
    assert "start codon as marked" in page.text_content("#status")
    assert page.text_content("#read-outs").count("functional_mrl") == 1
    assert page.locator("#view .letter").count() == len(SEQUENCE) - 1
    assert page.locator("#view .names button").count() == 12

    assert "stability" in page.locator("#view .names button").first.get_attribute("title")
    page.locator("#view .names button").nth(2).click()
    chosen = page.input_value("#feature")
    assert page.get_attribute("#view button[aria-pressed=true] ", "aria-pressed") == "true"
    assert page.locator(f"#view a[href='/atlas/index.html#{chosen}']").count() == 1

    page.fill("#edited", SEQUENCE.replace("ATGCC", "AAGCC"))
    page.click("#edit button[type=submit]")
    visitor.says("Compared; 1 letters")
    assert page.locator("#edit-result .bar.before").count() > 0

    page.fill("#sat-first", "40")
    page.fill("#sat-last", "56")
    page.click("#saturation button[type=submit]")
    visitor.says("Tried 48 substitutions")
    assert page.locator("#saturation-result .cell.can").count() == 48
    page.locator("#saturation-result table button").first.click()
    visitor.says("Compared; 1 letters")

    page.click("#intervene button[type=submit]")
    visitor.says(f"Set {chosen}")
    assert page.locator("#intervene-result .null").count() == 200
    page.select_option("#to", "sequence")
    page.fill("#source", SEQUENCE[5:60].replace("|", ""))
    page.click("#intervene button[type=submit]")
    page.wait_for_function("() => document.querySelectorAll('#intervene-result .names button').length === 1")
    visitor.says(f"Set {chosen}")

    fasta = [
        "".join(f">{side}{i}\n{letters * (8 + i)}\n" for i in range(4))
        for side, letters in (("a", "ACGU"), ("b", "GGC"))
    ]
    page.fill("#here", fasta[0])
    page.fill("#there", fasta[1])
    page.click("#contrast button[type=submit]")
    visitor.says("Tested ")
    assert page.locator("#contrast-result tbody tr").count() > 10

    link = page.url
    again = Visitor.__new__(Visitor)
    again.page, again.told = browser.new_page(viewport=SCREEN), []
    again.page.goto(link)
    again.says("Read ")
    assert again.page.input_value("#feature") == chosen
    assert again.page.input_value("#text").replace("|", "") == SEQUENCE.replace("T", "U").replace("|", "")
    assert visitor.told == []
    page.close()
    again.page.close()


def test_records_of_the_run_are_read_whole(browser: Any, server: Server) -> None:
    """By name, by a link of the atlas, and by another link in the same tab."""
    visitor = Visitor(browser, f"{server.url}/#record=first&feature=L0.mixer.3", says="Read first")
    page = visitor.page
    assert page.text_content("#measured") == "Measured: functional_mrl 6.250."
    assert page.get_attribute("#view button[aria-pressed=true]", "title") is not None
    assert page.input_value("#feature") == "L0.mixer.3"
    assert page.locator("#view .names").get_by_text("L0.mixer.3").count() == 1
    scrolls = page.evaluate(
        "(() => { const d = document.querySelector('#view .drawing'); return d.scrollWidth > d.clientWidth; })()"
    )
    assert not scrolls  # the whole of a short record is seen
    page.set_viewport_size(PHONE)
    page.locator("#view .names button").last.click()
    seen = page.evaluate(
        """() => {
          const drawing = document.querySelector("#view .drawing").getBoundingClientRect();
          const row = [...document.querySelectorAll("#view .drawing svg > g")].filter(g => g.querySelector(".bar")).at(-1);
          const bars = [...row.querySelectorAll(".bar")].map(bar => bar.getBoundingClientRect());
          const tallest = bars.sort((a, b) => b.height - a.height)[0];
          return tallest.left >= drawing.left - 1 && tallest.right <= drawing.right + 1;
        }"""
    )
    assert seen, "where the chosen feature is strongest is in sight"
    page.set_viewport_size(SCREEN)
    page.fill("#own-name", "IMG")
    page.wait_for_function("() => document.querySelectorAll('#own-names option').length === 1")
    page.fill("#own-name", page.locator("#own-names option").get_attribute("value"))
    page.click("#own button[type=submit]")
    visitor.says(f"Read {HOSTILE}")
    assert page.locator("main img").count() == 0
    assert "record=%3Cimg" in page.url
    page.evaluate("location.hash = '#record=first'")
    visitor.says("Read first")
    visitor.read("ACGAUGGCC")
    assert page.locator("#measured").is_hidden()
    assert "record=" not in page.url
    assert visitor.told == []
    page.close()


@pytest.mark.parametrize("told", [True, False])
def test_what_tells_high_from_low_among_pasted_sequences(browser: Any, server: Server, told: bool) -> None:
    """Halves by the numbers of the FASTA lines; by the prediction where one is missing."""
    visitor = Visitor(browser, server.url)
    page = visitor.page
    numbers = [3, 9, 1, 8, 2, 7]
    lines = [f">s{i} {n if told or i else ''}\n{'GCAC' * (5 + i)}AUGGCC\n" for i, n in enumerate(numbers)]
    visitor.read("".join(lines))
    page.click("#halves")
    by = "the numbers of the FASTA lines" if told else "the prediction of functional_mrl"
    page.wait_for_function("text => document.getElementById('status').textContent.includes(text)", arg=by)
    here, there = (page.input_value(side) for side in ("#here", "#there"))
    assert here.count(">") == there.count(">") == 3
    if told:
        assert [line.split()[0] for line in here.splitlines()[::2]] == [">s1", ">s3", ">s5"]
    values = [[float(line.split()[1]) for line in side.splitlines()[::2]] for side in (here, there)]
    assert min(values[0]) >= max(values[1])
    assert page.locator("#contrast-result tbody tr a").first.get_attribute("href").startswith("/atlas/index")
    page.fill("#text", "ACGAUGGCC")
    page.click("#halves")
    page.wait_for_selector("#status.bad")
    assert "at least 6 sequences" in page.text_content("#status")
    assert visitor.told == []
    page.close()


def test_names_that_are_markup_stay_text(browser: Any, server: Server) -> None:
    visitor = Visitor(browser, server.url)
    visitor.read(f">{HOSTILE}\nACGAUGGCC\n>second\nACGUACGUACGU\n")
    page = visitor.page
    assert page.locator("#record option").first.text_content() == HOSTILE
    assert page.locator("main img").count() == 0
    page.select_option("#record", "1")
    visitor.says("Read second")
    page.fill("#text", HOSTILE)
    page.click("#paste button[type=submit]")
    page.wait_for_selector("#status.bad")
    assert "is not one of ACGTUN" in page.text_content("#status")
    page.fill("#add", HOSTILE)
    page.click("#add-track")
    page.wait_for_function(
        "() => document.getElementById('status').textContent.includes('There is no feature')"
    )
    # What the server refuses, the browser notes; nothing else is noted.
    assert all("status of 400" in text for text in visitor.told)
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_for_everyone(browser: Any, server: Server, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    for viewport in (PHONE, SCREEN):
        visitor = Visitor(browser, server.url, viewport=viewport, color_scheme=scheme)
        page = visitor.page
        visitor.read(SEQUENCE)
        page.fill("#sat-first", "48")
        page.fill("#sat-last", "56")
        page.click("#saturation button[type=submit]")
        visitor.says("Tried")
        page.click("#intervene button[type=submit]")
        visitor.says("Set ")
        page.click("#edit button[type=submit]")
        visitor.says("Compared")
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        assert visitor.told == []
        found = Axe().run(page).response["violations"]
        assert [(v["id"], len(v["nodes"]), v["nodes"][0]["html"][:200]) for v in found] == []
        page.close()


def test_the_atlas_works_under_the_policy_of_the_server(browser: Any, tmp_path: Path) -> None:
    """Its script stands in the page and draws cards from files beside it: the served policy has to let it."""
    codes = {report_data.SITES[0]: report_data.corpus(report_data.SITES[0])}
    tables = AtlasTables(
        pd.DataFrame({"site": [], "feature": []}), {s: report_data.decoder(s) for s in codes}
    )
    made = feature_pages(codes, tables, [(site, 3) for site in codes])
    known = pd.DataFrame({"name": ["L0.mixer.3"], "site": [*codes], "feature": [3]})
    for place, content in atlas_folder(made, known, title="Atlas", subtitle="of a test").items():
        file = tmp_path / "atlas" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    codes_of = next(iter(codes.values())).table
    session = dataclasses.replace(shipped_session(8), table=codes_of)
    with serving(session, run_pages=tmp_path) as one:
        page = browser.new_page()
        told: list[str] = []
        page.on("console", lambda message: told.append(message.text))
        page.goto(f"{one.url}/atlas/index.html#L0.mixer.3")
        page.wait_for_selector("article.feature", timeout=60_000)
        record = page.locator("table.windows td.id a").first.text_content()
        page.get_by_role("link", name="See it on a sequence").click()
        page.wait_for_function(
            "text => document.getElementById('status').textContent.startsWith(text)", arg=f"Read {record}"
        )
        assert page.input_value("#feature") == "L0.mixer.3"
        page.go_back()
        page.wait_for_selector("article.feature")
        assert told == []
        page.close()


def test_a_run_is_served_with_its_own_read_out_and_pages(browser: Any, finished_run: FinishedRun) -> None:
    served = open_served(root=str(finished_run.root))
    with serving(served.session, run_pages=served.pages) as one:
        about = one.ask("/api/about").json
        assert (about["atlas"], about["report"]) == (True, True)
        for place in ("/atlas/index.html", "/report.html"):
            told: list[str] = []
            page = browser.new_page()
            page.on("console", lambda message, told=told: told.append(message.text))
            assert page.goto(one.url + place).status == 200
            page.wait_for_load_state("networkidle")
            assert told == []
            page.close()
        answer = one.ask("/api/read", {"sequence": {"sequence": SEQUENCE}}).json
        (read_out,) = answer["read_outs"]
        assert read_out["tried_low"] < read_out["tried_high"]
        known = finished_run.table("features").set_index("name")
        for feature in one.ask("/api/features").json["features"]:
            if feature["name"] in known.index:
                concept = known.loc[feature["name"], "best_concept"]
                assert feature["best_concept"] == (concept if isinstance(concept, str) else None)


def test_the_scripts_name_no_way_to_make_markup(project_path: Path) -> None:
    site = project_path / "src" / "helix_sae" / "explorer" / "site"
    for path in site.rglob("*"):
        if path.suffix in (".js", ".html"):
            text = path.read_text(encoding="utf-8")
            for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style="):
                assert way not in text, (path, way)
