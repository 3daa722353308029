"""The atlas in a real browser, opened from the disk: search, order, filters, cards, two of them, links and "back"."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import report_data
import scipy.sparse
from html_checks import HOSTILE, opened, unpacked
from report_data import CODON, GC, SITES, UAUG

from helix_sae.datasets.labels import label_table, read_labels
from helix_sae.reporting.atlas import AtlasTables, feature_pages
from helix_sae.reporting.atlas_folder import atlas_folder
from helix_sae.reporting.maps import sequence_map

N = report_data.N_FEATURES
SITE = SITES[0]


def name(feature: int) -> str:
    return f"L0.mixer.{feature}"


def known() -> pd.DataFrame:
    """What is known of each feature: the number is its effect, and every other one is certified."""
    table = pd.DataFrame({"name": [name(i) for i in range(N)], "site": SITE, "feature": range(N)})
    effect = [None if i == CODON else (i - 10) / 10 for i in range(N)]
    return table.assign(
        certified=["yes" if i % 2 else "no" for i in range(N)],
        best_concept=[{UAUG: "upstream_start", GC: HOSTILE, CODON: "codon_pos_1"}.get(i) for i in range(N)],
        effect=effect,
        effect_low=[None if e is None else e - 0.1 for e in effect],
        effect_high=[None if e is None else e + 0.1 for e in effect],
        effect_confirmed=["True" if i == 20 else "False" for i in range(N)],
    )


def pooled() -> Any:
    offsets, _, _ = report_data.token_rows()
    sums = np.add.reduceat(report_data.codes(SITE).toarray(), offsets[:-1])
    return scipy.sparse.csr_array(sums / np.diff(offsets)[:, None])


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    tables = AtlasTables(pd.DataFrame({"site": [], "feature": []}), {SITE: report_data.decoder(SITE)})
    made = feature_pages({SITE: report_data.corpus(SITE)}, tables, [(SITE, i) for i in range(N)])
    labels = label_table([{"feature": name(GC), "label": HOSTILE, "author": HOSTILE, "date": "2026-01-01"}])
    table = known().assign(
        suggested=["upstream start" if i == UAUG else "" for i in range(N)],
        rule=[f"rule {HOSTILE}" if i == UAUG else "" for i in range(N)],
    )
    places = np.array([[40 * i, 1000 - 40 * i] for i in range(N)])
    records = report_data.table().assign(functional_te=0.5)
    records["sequence_id"] = [f"{HOSTILE}{i}" for i in range(len(records))]
    sequences = sequence_map({SITE: pooled()}, records, [(SITE, i) for i in range(N)])
    return atlas_folder(
        made,
        table,
        labels=labels,
        places=places,
        sequences=sequences,
        title=HOSTILE,
        subtitle="s",
        first=[name(UAUG)],
    )


@pytest.fixture(scope="module")
def place(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("atlas")
    for path, content in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(content)
    return (folder / "index.html").as_uri()


@pytest.fixture
def page(browser: Any, place: str) -> Iterator[Any]:
    """The atlas as it opens; in the end nothing may have been complained of."""
    shown = browser.new_page(viewport={"width": 1280, "height": 900})
    shown.set_default_timeout(10_000)
    told: list[str] = []
    shown.on("console", lambda message: told.append(message.text))
    shown.on("pageerror", lambda error: told.append(str(error)))
    shown.on("dialog", lambda dialog: told.append(dialog.message))
    shown.goto(place)
    yield shown
    assert told == []
    shown.close()


def rows(page: Any) -> list[str]:
    """Names of the rows that are drawn."""
    return page.locator(".rows tbody th a:first-child").all_inner_texts()


def column(page: Any, title: str) -> list[str]:
    titles = page.locator(".rows thead tr:first-child th").all_inner_texts()
    at = [t.strip(" ▴▾") for t in titles].index(title)
    return page.locator(f".rows tbody tr:not(.space) > :nth-child({at + 1})").all_inner_texts()


def opened_cards(page: Any) -> list[str]:
    return page.locator("article.feature h2").all_inner_texts()


def test_the_index_begins_with_the_highlights_and_has_all(page: Any):
    assert page.locator(".tools output").inner_text() == f"{N} features"
    assert rows(page)[:3] == [name(UAUG), name(0), name(1)]
    assert page.locator("h1").inner_text() == " ".join(HOSTILE.split())


def test_search_looks_into_all_columns_and_is_plain_text(page: Any):
    page.fill("#search", "upstream l0")
    assert rows(page) == [name(UAUG)]
    assert page.locator(".tools output").inner_text() == f"1 of {N} features"
    page.fill("#search", "<SCRIPT>alert")
    assert name(GC) in rows(page)
    assert HOSTILE.split()[0] in column(page, "Best concept")[0]
    page.fill("#search", "reading frame")  # what stands for it is "codon pos"
    assert rows(page) == [name(CODON)]
    page.fill("#search", "nothing has this")
    assert rows(page) == []


def test_the_order_of_a_column_with_the_missing_last(page: Any):
    page.get_by_role("button", name="Effect", exact=True).click()
    assert column(page, "Effect")[:2] == ["+1.300", "+1.200"]
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("Effect")
    page.locator(".rows").evaluate("box => { box.scrollTop = 1e6; }")
    page.wait_for_function("document.querySelector('.rows tbody').innerText.includes('L0.mixer.5')")
    assert column(page, "Effect")[-2:] == ["−1.000", "–"]
    page.get_by_role("button", name="Effect", exact=True).click()
    assert column(page, "Effect")[0] == "−1.000"
    assert "sort=effect" in page.url


def test_filters_by_range_choice_and_text(page: Any):
    page.get_by_label("Effect from").press_sequentially("0.55")
    page.get_by_label("Certified is").select_option("yes")
    assert rows(page) == [name(i) for i in (17, 19, 21, 23)]
    page.get_by_label("Effect to").fill("1")
    assert rows(page) == [name(17), name(19)]
    page.get_by_role("button", name="Clear").click()
    assert page.locator(".tools output").inner_text() == f"{N} features"
    density = dict(zip(rows(page), column(page, "Density"), strict=True))
    page.get_by_label("Density from").fill("20")
    kept = [one for one, shown in density.items() if float(shown.split()[0]) >= 20]
    assert kept
    assert set(rows(page)) >= set(kept)
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Letters holds").fill("aug")
    assert name(UAUG) in rows(page)


def test_numbers_are_written_as_on_the_cards(page: Any, files: dict[str, bytes]):
    page.get_by_role("link", name=name(GC), exact=True).click()
    page.wait_for_selector("article.feature")
    shown = dict(zip(rows(page), column(page, "Density"), strict=True))[name(GC)]
    assert f"Active at {shown} of nucleotides" in page.locator("article.feature").inner_text()
    assert f"Active at {shown} of nucleotides" in opened(files).words(name(GC))


def test_a_card_is_drawn_from_its_file(page: Any, files: dict[str, bytes]):
    page.get_by_role("link", name=name(UAUG), exact=True).click()
    page.wait_for_selector("article.feature")
    card = page.locator("article.feature")
    assert card.get_attribute("id") == name(UAUG)
    strongest = opened(files).blocks(name(UAUG), "windows")[0][2]
    assert card.locator("table.windows").first.locator("td.seq").all_inner_texts() == [
        w[2] for w in strongest
    ]
    assert card.locator("svg.logo path.A").count() > 0
    assert page.locator("tr.open th").inner_text().startswith(name(UAUG))


def test_two_cards_side_by_side_deep_links_and_back(page: Any, place: str):
    page.fill("#search", "l0")
    page.get_by_role("link", name=name(UAUG), exact=True).click()
    page.wait_for_selector("article.feature")
    page.get_by_label(f"{name(CODON)} beside {name(UAUG)}").click()
    page.wait_for_selector("article:nth-child(2)")
    assert opened_cards(page) == [name(UAUG), name(CODON)]
    boxes = [page.locator("article").nth(i).bounding_box() for i in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"]
    page.fill("#search", "l0.mixer.1")
    link = page.url
    assert link.endswith(f"#{name(UAUG)},{name(CODON)}?q=l0.mixer.1")
    page.go_back()
    assert page.input_value("#search") == "l0"
    page.go_back()
    page.wait_for_function("document.querySelectorAll('article').length === 1")
    assert opened_cards(page) == [name(UAUG)]
    page.go_back()
    page.wait_for_function("document.querySelectorAll('article').length === 0")
    page.go_back()
    assert page.input_value("#search") == ""
    page.goto(place.replace("index.html", "index.html?again") + link[link.index("#") :])
    page.wait_for_selector("article:nth-child(2)")
    assert opened_cards(page) == [name(UAUG), name(CODON)]
    assert set(rows(page)) == {name(i) for i in (1, *range(10, 20))}
    page.get_by_label(f"Close {name(UAUG)}").click()
    page.wait_for_function("document.querySelectorAll('article').length === 1")
    assert opened_cards(page) == [name(CODON)]


@pytest.mark.parametrize(
    "hash_", ["#no.such.9", "#%E0%A4%A", "#?sort=nothing&effect=x_y&q=%00", "#,,,?&=", "#__proto__"]
)
def test_addresses_that_nobody_wrote(page: Any, place: str, hash_: str):
    page.goto(f"{place}?{abs(hash(hash_))}{hash_}")
    page.wait_for_selector(".rows")
    assert opened_cards(page) == []


def test_a_card_whose_file_is_missing_says_what_to_do(browser: Any, files: dict[str, bytes], tmp_path: Path):
    (tmp_path / "index.html").write_bytes(files["index.html"])
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri() + f"#{name(UAUG)}")
    page.wait_for_selector("[role=alert]")
    assert "cards/00000.js is not beside this page" in page.locator("[role=alert]").inner_text()
    page.close()


def test_labels_are_given_searched_kept_and_exported(page: Any, place: str, tmp_path: Path):
    page.get_by_role("link", name=name(UAUG), exact=True).click()
    card = page.locator("article.feature")
    card.wait_for()
    assert "Suggested by the evidence: upstream start" in card.inner_text()
    assert " ".join(HOSTILE.split()) in " ".join(card.inner_text().split())
    page.get_by_label(f"label for {name(UAUG)}").fill('=start, "maybe"')
    page.get_by_label(f"author for {name(UAUG)}").fill(HOSTILE)
    card.get_by_role("button", name="Add").click()
    page.fill("#search", "maybe")
    assert rows(page) == [name(UAUG)]
    page.reload()
    page.wait_for_selector(".labels li")
    assert '=start, "maybe"' in page.locator(".labels li").inner_text()
    with page.expect_download() as found:
        page.get_by_role("button", name="Export labels (changed)").click()
    found.value.save_as(tmp_path / "labels.csv")
    back = read_labels(str(tmp_path / "labels.csv"))
    assert back["label"].tolist() == [HOSTILE, '=start, "maybe"']
    assert back["author"].tolist() == [HOSTILE, HOSTILE]
    assert "'=start" in (tmp_path / "labels.csv").read_text()
    page.get_by_role("button", name="Remove the label").click()
    assert page.locator(".labels li").count() == 0


def on_canvas(page: Any, label: str, x: float, y: float) -> tuple[float, float]:
    """A place of the window for a place of a map, from 0 to 1000."""
    canvas = page.get_by_label(label)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    return (
        box["x"] + box["width"] * (40 + 1.24 * x) / 1320,
        box["y"] + box["height"] * (40 + 0.8 * y) / 880,
    )


def test_the_map_of_features_and_the_index_lead_to_each_other(page: Any):
    page.get_by_text("Map of features", exact=True).click()
    page.mouse.move(*on_canvas(page, "Map of the features of a site", 40 * UAUG, 1000 - 40 * UAUG))
    page.wait_for_function(
        f"[...document.querySelectorAll('.maps output')].some(o => o.value.startsWith('{name(UAUG)} '))"
    )
    page.mouse.click(*on_canvas(page, "Map of the features of a site", 40 * UAUG, 1000 - 40 * UAUG))
    page.wait_for_selector("article.feature")
    assert opened_cards(page) == [name(UAUG)]
    page.mouse.move(*on_canvas(page, "Map of the features of a site", 30, 850))
    page.mouse.down()
    page.mouse.move(*on_canvas(page, "Map of the features of a site", 130, 970))
    page.mouse.up()
    assert set(rows(page)) == {name(i) for i in (1, 2, 3)}
    assert "box=" in page.url
    page.get_by_role("button", name="Clear").click()
    assert page.locator(".tools output").inner_text() == f"{N} features"


def test_the_map_of_sequences(page: Any, files: dict[str, bytes]):
    found = unpacked(files["sequences.js"], "sequences")
    page.get_by_text("Map of sequences", exact=True).click()
    page.get_by_label("Map of the sequences").wait_for()
    x, y = (axis[0] for axis in found["places"])
    page.mouse.click(*on_canvas(page, "Map of the sequences", x, y))
    told = page.locator(".maps p b")
    told.wait_for()
    assert told.inner_text().startswith(HOSTILE.split()[0])
    page.locator(".maps p a").first.click()
    page.wait_for_selector("article.feature")
    colours = page.get_by_label("Coloured by").last
    for choice in colours.locator("option").all():
        colours.select_option(value=choice.get_attribute("value"))
    page.wait_for_function("document.querySelectorAll('.maps .key')[1].innerText.includes('100 %')")


def test_by_keyboard_alone(page: Any):
    page.locator("#search").focus()
    page.keyboard.type("upstream")
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == name(UAUG):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("article.feature")
    assert page.evaluate("document.activeElement.tagName") == "H2"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_index_and_cards_are_for_everyone(browser: Any, place: str, scheme: str):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    for width, height in ((390, 844), (1280, 900)):
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.goto(f"{place}#{name(UAUG)},{name(GC)}?sort=effect")
        page.wait_for_selector("article:nth-child(2)")
        for title in ("Map of features", "Map of sequences"):
            page.get_by_text(title, exact=True).click()
        page.get_by_label("Map of the sequences").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        pictures = page.locator("article svg:not([aria-label='estimate with interval'])")
        said = pictures.evaluate_all("them => them.map(one => one.getAttribute('aria-label'))")
        assert len(said) == len(set(said)) == 4, "no two pictures are described alike"
        found = axe.Axe().run(page).response["violations"]
        assert [(v["id"], len(v["nodes"]), v["nodes"][0]["html"][:200]) for v in found] == []
        page.close()
