"""The pages in a real browser: no errors, no network, every figure drawn, narrow screens, the dark, and paper."""

import shutil
import time

import pytest

from tests.reports import invented
from tests.reports.test_run_page import make_run
from workhorse.reports.palette import DARK, LIGHT
from workhorse.reports.run_page import write_run_report
from workhorse.reports.study_page import write_study_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
TIMEOUT_MS = 30_000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"none of {', '.join(NAMES)} is installed")

DRAWN = """() => [...document.querySelectorAll('.panel')].map((panel) => {
  const svg = panel.querySelector('svg.main-svg'), box = svg ? svg.getBoundingClientRect() : { width: 0, height: 0 };
  const marks = panel.querySelectorAll('.scatterlayer path, .scatterlayer use, .barlayer path').length;
  return { name: panel.dataset.figure, width: box.width, height: box.height, marks, room: panel.clientWidth };
})"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=TIMEOUT_MS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    return {
        "study": write_study_report(invented.study(folder / "study"), folder / "study"),
        "hostile": write_study_report(invented.hostile_study(), folder / "hostile"),
        "search": write_study_report(invented.search_study(), folder / "search"),
        "run": write_run_report(make_run(folder).path),
    }


@pytest.fixture
def opened(browser):
    """Opens a page and collects whatever goes wrong in it."""
    contexts = []

    def open_page(path, width=1200, height=900, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        trouble = []
        page.on("console", lambda message: trouble.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
        page.on("request", lambda request: trouble.append(request.url) if is_fetched(request.url) else None)
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready=true]", state="attached")
        return page, trouble

    def is_fetched(url):
        return not url.startswith(("data:", "blob:")) and not url.endswith("/report.html")

    yield open_page
    for context in contexts:
        context.close()


def wait_for(page, expression):
    """Playwright's own waiting is stopped by the page's policy, as any text that would be run is."""
    deadline = time.monotonic() + TIMEOUT_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["study", "hostile", "search", "run"])
def test_every_figure_is_drawn_without_trouble_on_a_phone_and_on_a_desk(opened, pages, name):
    page, trouble = opened(pages[name], width=375, height=812)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375, "no sideways scrolling"
    small = page.evaluate(DRAWN)
    page.set_viewport_size({"width": 1200, "height": 900})
    wait_for(page, "[...document.querySelectorAll('.panel')].every((p) => Number(p.dataset.width) === p.clientWidth)")
    large = page.evaluate(DRAWN)
    assert len(small) == len(large) >= 4
    for panel in (*small, *large):
        assert panel["width"] > 100, panel
        assert panel["height"] > 100, panel
        assert panel["marks"] > 0, panel
        assert panel["width"] <= panel["room"] + 1, panel
    assert max(panel["width"] for panel in small) <= 375
    assert max(panel["width"] for panel in small) < max(panel["width"] for panel in large), "they follow the window"
    assert page.title() != "taken"
    assert not trouble


def colours(page):
    return page.evaluate(
        """() => ({ ground: getComputedStyle(document.body).backgroundColor,
          line: document.querySelector('.scatterlayer .js-line').style.stroke,
          paper: document.querySelector('.panel svg.main-svg').style.background,
          text: document.querySelector('.panel .xtick text').style.fill })"""
    )


def rgb(colour):
    return f"rgb({', '.join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))})"


def test_the_dark_changes_page_and_figures_and_the_button_changes_them_back(opened, pages):
    names = {"ground": "ground", "paper": "card", "text": "muted"}
    page, trouble = opened(pages["run"], scheme="dark")
    dark = colours(page)
    assert {name: dark[name] for name in names} == {name: rgb(DARK[colour]) for name, colour in names.items()}
    page.click("#theme")
    light = colours(page)
    assert {name: light[name] for name in names} == {name: rgb(LIGHT[colour]) for name, colour in names.items()}
    assert light["line"] != dark["line"]
    page.reload()
    page.wait_for_selector("html[data-ready=true]", state="attached")
    assert colours(page) == light, "the choice lasts"
    assert not trouble


def test_legend_copy_print_and_links_work(opened, pages, tmp_path):
    page, trouble = opened(pages["study"], scheme="dark")
    _check_legend(page)
    page.click(".copy")
    wait_for(page, "['Copied', 'Selected'].includes(document.querySelector('.copy').textContent)")
    page.click("#theme")
    _check_print(page, tmp_path / "page.pdf")
    assert not trouble
    page.click("#failures a >> nth=0")
    page.wait_for_url("**/runs/HalfCheetah-v5-ars-s3/")
    assert "videos" in page.content(), "the listing of the run folder"


def _check_legend(page):
    count = "document.querySelectorAll('#figure-learning-curves-Hopper-v5 .js-line').length"
    key = "#figure-learning-curves-Hopper-v5 button.key >> nth=0"
    before = page.evaluate(count)
    page.click(key)
    hidden = page.evaluate(count)
    assert 0 < hidden < before
    page.click("#theme")
    assert page.evaluate(count) == hidden, "it stays hidden when the theme changes"
    page.click(key)
    assert page.evaluate(count) == before


def _check_print(page, place):
    paper = "document.querySelector('.panel svg.main-svg').style.background"
    on_screen = page.evaluate(paper)
    page.evaluate(
        f"""() => addEventListener('beforeprint', () => {{ window.printed = {{
          spare: [...document.querySelectorAll('.panel')].map((panel) =>
            panel.clientWidth - panel.querySelector('svg.main-svg').getBoundingClientRect().width),
          open: [...document.querySelectorAll('details')].every((folded) => folded.open), paper: {paper} }} }})"""
    )
    content = page.pdf(path=str(place), format="A4", print_background=True)
    assert content[:5] == b"%PDF-"
    assert len(content) > 50_000
    printed = page.evaluate("window.printed")
    assert on_screen == rgb(DARK["card"])
    assert printed["paper"] == rgb(LIGHT["card"]), "paper is light"
    assert min(printed["spare"]) >= -1, "no figure is wider than its place"
    assert printed["open"], "what is folded is printed too"
    wait_for(page, f"{paper} === {on_screen!r}")
