"""The page in a browser, at the width of a phone and of a desk, from disk and without a network."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.report.page.document import page

CHROMIUM = Path("/usr/bin/chromium")
STUDIES = ("costs", "search")
"""Between them they have every figure."""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium"),
]


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.mark.parametrize("kind", STUDIES)
def test_it_fits_and_draws_at_any_width(browser, synthetic, tmp_path, kind):
    file = tmp_path / "report.html"
    file.write_text(page(synthetic(kind).report))
    said, asked = [], []
    for width, scheme in ((390, "dark"), (1400, "light")):
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(file.as_uri())
        plots = tab.locator(".plot")
        assert plots.count() > 0
        for i in range(plots.count()):
            plots.nth(i).locator("svg.main-svg").first.wait_for()
            marks = plots.nth(i).locator("g.points path, g.lines path, path.js-line, path.js-fill")
            assert marks.count() > 0, f"nothing is drawn in {plots.nth(i).get_attribute('id')}"
            assert plots.nth(i).evaluate("node => node.firstElementChild.scrollWidth <= node.clientWidth")
        assert tab.evaluate("document.documentElement.scrollWidth") == width, "the page scrolls sideways"
        for image in tab.locator("img").all():
            assert image.evaluate("node => node.complete && node.naturalWidth > 0")
        tab.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()] * 2


def test_figures_follow_a_page_that_turns_dark(browser, synthetic, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(page(synthetic().report))
    tab = browser.new_page(color_scheme="light", bypass_csp=True)  # the page forbids the eval that waiting needs
    tab.goto(file.as_uri())
    tab.locator(".plot .xtick text").first.wait_for(state="attached")
    ink = "getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    light = tab.evaluate(ink)
    tab.emulate_media(color_scheme="dark")
    tab.wait_for_function(f"{ink} !== '{light}'", timeout=240_000)
    tab.close()


def test_a_wide_table_keeps_its_first_column_and_shows_that_it_goes_on(browser, synthetic, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(page(synthetic().report))
    tab = browser.new_page(viewport={"width": 390, "height": 900}, color_scheme="light")
    tab.goto(file.as_uri())
    box = tab.locator(".scroll").first

    def edge():
        """The colour of most of its rightmost pixels, where letters are few."""
        picture = Image.open(io.BytesIO(box.screenshot())).convert("RGB")
        column = picture.crop((picture.width - 2, 0, picture.width - 1, picture.height))
        return max(column.getcolors())[1]

    shaded = edge()
    box.evaluate("node => { node.scrollLeft = node.scrollWidth }")
    assert box.evaluate("node => node.scrollLeft") > 0
    assert sum(shaded) < sum(edge()) == 3 * 255
    for name in ("thead th", "tbody th"):
        assert tab.locator(f".scroll {name}").first.bounding_box()["x"] == box.bounding_box()["x"], name
    tab.close()
