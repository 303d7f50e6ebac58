"""The documentation's pages in a real browser: widths, headings, contrast and links."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import os
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chromium import Browser, find_browser

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
CHROMIUM = find_browser()
WIDE, NARROW = (1366, 900), (390, 844)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
    pytest.mark.skipif(importlib.util.find_spec("material") is None, reason="the group `docs` is not installed"),
]

OVERFLOWING = """
(() => {
  const boxes = [...document.querySelectorAll("article pre > code, article .md-typeset__scrollwrap, article img")];
  const isWide = (box) => box.scrollWidth > box.clientWidth + 1 || box.getBoundingClientRect().right > innerWidth;
  const wide = boxes.filter(isWide);
  return wide.map((box) => box.tagName + ": " + box.textContent.trim().slice(0, 60));
})()
"""
PAGE_WIDTH = "document.documentElement.scrollWidth"
# The contrast ratio of WCAG 2 for all visible text; 3 is enough for large text.
LOW_CONTRAST = """
(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] / 255 + below[i] * (1 - top[3] / 255));
  const background = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(rgba(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const luminance = (color) => color
    .map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const found = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    if (element.closest("script, style, svg, [aria-hidden=true], .headerlink, .md-search")) continue;
    if (!element.closest("article, header, nav, footer")) continue;
    const style = getComputedStyle(element);
    const behind = background(element);
    const [a, b] = [luminance(over(rgba(style.color), behind)), luminance(behind)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && parseInt(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) found.add(ratio.toFixed(2) + " " + element.className + ": " + text.slice(0, 40));
  }
  return [...found];
})()
"""


class Page(HTMLParser):
    """The headings, anchors, links and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.top_headings = 0
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.top_headings += tag == "h1"
        self.anchors.add(values.get("id") or "")
        if tag in {"a", "img"}:
            self.links.append(values.get("href") or values.get("src") or "")

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {path.relative_to(site).as_posix(): Page(path) for path in sorted(site.rglob("index.html"))}


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    handler = functools.partial(QuietHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Log no requests."""


@pytest.fixture
def browser() -> Iterator[Browser]:
    # One browser per test, since a browser starts processes at any time.
    assert CHROMIUM is not None
    with Browser(CHROMIUM, seconds=280) as page:
        yield page


def show(browser: Browser, address: str, size: tuple[int, int], scheme: str = "light") -> None:
    width, height = size
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=size == NARROW
    )
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.call("Page.navigate", url=address)
    browser.wait_for(f"location.href === {json.dumps(address)} && document.readyState === 'complete'")


def evaluate(browser: Browser, script: str) -> Any:
    answer = browser.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
    assert "exceptionDetails" not in answer, answer["exceptionDetails"]
    return answer["result"].get("value")


def test_tables_and_code_fit_into_a_wide_page(browser: Browser, address: str, pages: dict[str, Page]) -> None:
    found = {}
    for name in pages:
        show(browser, address + name, WIDE)
        found[name] = evaluate(browser, OVERFLOWING)
    assert {name: boxes for name, boxes in found.items() if boxes} == {}


def test_a_narrow_page_does_not_scroll_sideways(browser: Browser, address: str, pages: dict[str, Page]) -> None:
    widths = {}
    for name in pages:
        show(browser, address + name, NARROW)
        widths[name] = evaluate(browser, PAGE_WIDTH)
    assert {name: width for name, width in widths.items() if width > NARROW[0]} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_enough_contrast(browser: Browser, address: str, pages: dict[str, Page], scheme: str) -> None:
    found = set()
    for name in pages:
        show(browser, address + name, WIDE, scheme)
        shown = evaluate(browser, "document.body.dataset.mdColorScheme")
        assert shown == ("slate" if scheme == "dark" else "default")
        found |= set(evaluate(browser, LOW_CONTRAST))
    assert found == set()


# Typed again at each check: the page drops keys while it loads its index.
SUGGESTED = """(() => {
  const input = document.querySelector(".md-search__input");
  input.focus();
  input.value = "offl";
  for (const event of ["keydown", "keyup"]) input.dispatchEvent(new KeyboardEvent(event, {bubbles: true, key: "l"}));
  return document.querySelector(".md-search__suggest").textContent === "offline";
})()"""


def test_the_search_box_suggests_pages(browser: Browser, address: str) -> None:
    show(browser, address, WIDE)
    browser.wait_for(SUGGESTED)


def test_every_page_has_one_top_heading(pages: dict[str, Page]) -> None:
    assert {name: page.top_headings for name, page in pages.items() if page.top_headings != 1} == {}


def test_no_page_shows_internal_names(pages: dict[str, Page]) -> None:
    internal = ("Sentinel", "UNSET", "_RunScheduler", "DEFAULT_CLOSE_TIMEOUT", "EventWriter(", "<class ")
    found = {name: [word for word in internal if word in page.text] for name, page in pages.items()}
    assert {name: words for name, words in found.items() if words} == {}


def test_patterns_keep_their_asterisks(pages: dict[str, Page]) -> None:
    for name in ("reference/python/index.html", "reference/command-line/index.html"):
        assert "*.tfevents.*" in pages[name].text


def test_internal_links_point_to_existing_pages_and_headings(site: Path, pages: dict[str, Page]) -> None:
    broken = []
    for name, page in pages.items():
        for link in page.links:
            if "://" in link or link.startswith(("mailto:", "#__", "data:")):
                continue
            path, _, anchor = link.partition("#")
            target = (page.path.parent / path).resolve() if path else page.path
            target = target / "index.html" if target.is_dir() else target
            relative = target.relative_to(site.resolve()).as_posix() if target.is_relative_to(site.resolve()) else ""
            if not target.is_file() or (anchor and relative in pages and anchor not in pages[relative].anchors):
                broken.append(f"{name}: {link}")
    assert broken == []


def test_every_page_has_theme_switch_repository_link_and_navigation(pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        source = page.path.read_text(encoding="utf-8")
        assert "data-md-color-scheme" in source, name
        assert 'class="md-source"' in source, name
        assert "md-footer__link" in source, name
