"""The built documentation, opened from the disk: search finds pages, and nothing is fetched from elsewhere."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("material", reason="the theme of the documentation is not installed")

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"none of {', '.join(NAMES)} is installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Two pages with our theme, scripts and plugins, but without the reference, which takes long."""
    folder = tmp_path_factory.mktemp("documentation")
    shutil.copytree(ROOT / "docs" / "javascripts", folder / "docs" / "javascripts")
    shutil.copytree(ROOT / "docs" / "images", folder / "docs" / "images", ignore=shutil.ignore_patterns("*.png"))
    (folder / "docs" / "index.md").write_text("# Home\n\nNothing here.\n")
    (folder / "docs" / "deep").mkdir()
    (folder / "docs" / "deep" / "page.md").write_text("# Bootstrapping\n\nA *minibatch* of zebras.\n")
    ours = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    kept = {name: ours[name] for name in ("site_name", "use_directory_urls", "theme", "extra", "markdown_extensions")}
    kept["plugins"] = [plugin for plugin in ours["plugins"] if isinstance(plugin, str)]
    (folder / "mkdocs.yml").write_text(yaml.safe_dump(kept))
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env={"NO_MKDOCS_2_WARNING": "1"})
    return folder / "site"


@pytest.mark.parametrize("start", ["index.html", "deep/page.html"])
def test_search_works_from_the_disk_and_fetches_nothing(site, start):
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=30_000)
        page = browser.new_page()
        page.set_default_timeout(30_000)
        asked, trouble = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.goto((site / start).as_uri())
        page.click(".md-search__input")
        page.keyboard.type("zebras")
        page.wait_for_selector(".md-search-result__item")
        assert "Bootstrapping" in page.locator(".md-search-result__item").first.inner_text()
        browser.close()
    assert trouble == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
