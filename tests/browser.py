"""Chromium, where one is installed, for tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A headless Chromium; the test is skipped where there is none."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"needs a browser, none of {', '.join(NAMES)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        yield browser
        browser.close()


class Watched:
    """A page that notes what it asks for beyond the disk, and what goes wrong in it."""

    def __init__(self, context: BrowserContext, path: Path) -> None:
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page: Page = context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.goto(path.resolve().as_uri())

    def foreign(self) -> list[str]:
        """What was asked for that is neither a file nor part of the page."""
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]


def audit(page: Page) -> list[str]:
    """What axe-core, by Deque Systems, finds against WCAG 2.2 AA and good practice: rule and places."""
    source = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    page.evaluate(source)
    found: dict[str, Any] = page.evaluate("rules => axe.run({runOnly: rules})", RULES)
    assert found["passes"], "axe must have run"
    return [
        f"{each['id']}: {[node['target'] for node in each['nodes']][:3]} {each['nodes'][0].get('failureSummary', '')}"
        for each in found["violations"]
    ]
