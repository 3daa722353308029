"""Report and atlas in a real browser: for everyone, on a phone, in the dark and on paper."""

from __future__ import annotations

from typing import Any

import pytest
from kedro_runs import FinishedRun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PHONE, SCREEN = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("place", ["report.html", "atlas/index.html"])
def test_pages_are_for_everyone(browser: Any, finished_run: FinishedRun, place: str, scheme: str) -> None:
    """No violation that axe knows of, no sideways scrolling on a phone, and nothing that the browser complains of."""
    from axe_playwright_python.sync_playwright import Axe

    for viewport in (PHONE, SCREEN):
        page = browser.new_page(viewport=viewport, color_scheme=scheme)
        told: list[str] = []
        page.on("console", lambda message, told=told: told.append(message.text))
        page.on("pageerror", lambda error, told=told: told.append(str(error)))
        page.goto((finished_run.root / "latest" / place).as_uri())
        if "atlas" in place:
            page.locator(".rows tbody a").first.click()
            page.wait_for_selector("article.feature")
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        assert told == []
        found = Axe().run(page).response["violations"]
        assert [(v["id"], len(v["nodes"]), v["nodes"][0]["html"][:200]) for v in found] == []
        page.close()


@pytest.mark.parametrize("place", ["report.html", "atlas/index.html"])
def test_paper_is_white_whatever_the_screen(browser: Any, finished_run: FinishedRun, place: str) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto((finished_run.root / "latest" / place).as_uri())
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(20, 24, 29)"
    page.emulate_media(media="print")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.close()
