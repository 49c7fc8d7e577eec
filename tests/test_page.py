"""The HTML page in a real browser: what a reader sees and can do with it, in both themes and at two widths."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import FIXTURES
from tests.test_review import HOSTILE, compared, hostile, told
from translator.comparison.review import Compared

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium.webdriver import Chrome

WIDE, NARROW = (1280, 900), (420, 900)
QUIET = FIXTURES / "diffs/another-implementation-is-the-hosts-affair"
# The least contrast that WCAG 2.2 asks of text, 1.4.3.
CONTRAST = """
const channels = color => color.match(/[\\d.]+/g).map(Number);
const light = color => channels(color).slice(0, 3).map(c => c / 255)
  .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const solid = color => color && color.startsWith("rgb") && (channels(color)[3] ?? 1) > 0;
function behind(element) {
  for (let one = element; one; one = one.parentElement) {
    const box = one.localName === "g" && one.querySelector(":scope > rect");
    const fill = box && getComputedStyle(box).fill;
    if (solid(fill)) return fill;
    const color = getComputedStyle(one).backgroundColor;
    if (solid(color)) return color;
  }
}
const texts = "h1, h2, p, label, th, td, dt, del, ins, figcaption, .notices, .quiet, svg text";
const ratio = (one, other) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
return [...document.querySelectorAll(texts)]
  .filter(one => one.checkVisibility() && one.textContent.trim())
  .map(one => {
    const style = getComputedStyle(one);
    const ink = one.namespaceURI.endsWith("svg") ? style.fill : style.color;
    return [`${one.localName}.${one.getAttribute("class") ?? ""}`, ratio(light(ink), light(behind(one)))];
  });
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        if os.environ.get("CI"):
            pytest.fail("chromium and chromedriver are not installed, and CI is to test with them")
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield chrome
    finally:
        chrome.quit()


def open_page(
    browser: Chrome, folder: Path, *files: Compared, size: tuple[int, int] = WIDE, theme: str = "light"
) -> None:
    """Open the page of a comparison; what the browser logs while it does so must be nothing."""
    file = folder / "page.html"
    file.write_text(told("html", *files), encoding="utf-8")
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    log(browser, "performance")
    browser.get(file.as_uri())
    assert log(browser, "browser") == []


def log(browser: Chrome, kind: str) -> list[dict[str, str]]:
    """Return what the browser logged since it was last asked."""
    return list(browser.get_log(kind))  # type: ignore[no-untyped-call]  # selenium's has no types


def script(browser: Chrome, text: str, *arguments: object) -> Any:
    return browser.execute_script(text, *arguments)


def shown(browser: Chrome) -> list[str]:
    return list(
        script(
            browser,
            "return [...document.querySelectorAll('article')].filter(a => a.checkVisibility())"
            ".map(a => a.querySelector('h2').firstChild.data)",
        )
    )


def everything() -> tuple[Compared, ...]:
    loud = compared(FIXTURES / "diffs/everything-at-once", "guests/web.xml")
    quiet = compared(QUIET, "guests/a.xml")
    return quiet, loud, Compared(path="guests/new.xml", status="added", new=loud.new)


def test_what_guests_notice_comes_first(browser: Chrome, tmp_path: Path) -> None:
    open_page(browser, tmp_path, *everything())
    assert shown(browser) == ["guests/web.xml", "guests/a.xml", "guests/new.xml"]
    noticed = script(browser, "return [...document.querySelectorAll('tr[data-id]')].map(r => 'noticed' in r.dataset)")
    assert noticed == [True] * 6 + [False] * 3
    figures = script(
        browser, "return [...document.querySelectorAll('article')].map(a => a.querySelectorAll('svg').length)"
    )
    assert figures == [2, 2, 1]


def test_it_can_be_searched(browser: Chrome, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By

    open_page(browser, tmp_path, *everything())
    search, loud = browser.find_element(By.ID, "search"), browser.find_element(By.ID, "loud")
    search.send_keys("tablet web.xml")
    assert shown(browser) == ["guests/web.xml"]
    search.send_keys("nowhere")
    assert shown(browser) == []
    assert browser.find_element(By.ID, "none").is_displayed()
    search.clear()
    loud.click()
    assert shown(browser) == ["guests/web.xml"]
    assert (
        len(script(browser, "return [...document.querySelectorAll('tr[data-id]')].filter(r => r.checkVisibility())"))
        == 6
    )


def test_a_change_is_marked_on_both_sides(browser: Chrome, tmp_path: Path) -> None:
    open_page(browser, tmp_path, compared(FIXTURES / "diffs/everything-at-once"))
    marks = script(
        browser,
        "return [...document.querySelectorAll('svg')].map(svg =>"
        " [...svg.querySelectorAll('.sign')].map(sign => sign.parentNode.dataset.id + ' ' + sign.textContent))",
    )
    both = ["controller:usb:0 ~", "controller:usb:1 ~", "controller:usb:2 ~", "device:usb:2:1 ~"]
    assert marks == [
        [*both, "device:usb:2:2.1 −", "device:usb:2:2.2 →"],
        [*both, "device:usb:2:2.4 →", "device:usb:2:9 +"],
    ]
    script(
        browser, "document.querySelector('[data-was]').dispatchEvent(new MouseEvent('mouseover', {bubbles: true}))"
    )
    lit = script(browser, "return [...document.querySelectorAll('.lit')].map(box => box.dataset.id)")
    assert lit == ["device:usb:2:2.2", "device:usb:2:2.4"]


def test_it_asks_for_nothing_and_a_name_stays_a_text(browser: Chrome, tmp_path: Path) -> None:
    open_page(browser, tmp_path, hostile())
    asked = [
        entry["message"] for entry in log(browser, "performance") if '"Network.requestWillBeSent"' in entry["message"]
    ]
    assert [message for message in asked if "page.html" not in message] == []
    assert script(browser, "return document.scripts.length") == 1
    (path,) = shown(browser)
    assert path == HOSTILE.replace("\x1b", "\\u001b").replace("\u202e", "\\u202e").replace("\n", "\\u000a")
    # and what would get past the escaping does nothing
    added = "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')"
    script(browser, added)
    assert "Content Security Policy" in log(browser, "browser")[0]["message"]
    assert browser.title == "USB hardware compared"


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_and_can_be_read(browser: Chrome, tmp_path: Path, theme: str, size: tuple[int, int]) -> None:
    open_page(browser, tmp_path, *everything(), hostile(), size=size, theme=theme)
    assert script(browser, "return document.documentElement.scrollWidth") <= size[0]
    columns = script(
        browser, "return new Set([...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().x)).size"
    )
    assert columns == (2 if size == WIDE else 1)
    facts = "return [...document.querySelectorAll('dd')].filter(d => d.textContent.length < 25)"
    assert max(script(browser, f"{facts}.map(d => d.getBoundingClientRect().height)")) < 45, "short words stay whole"
    contrasts = script(browser, CONTRAST)
    assert len(contrasts) > 100
    assert {name: ratio for name, ratio in contrasts if ratio < 4.5} == {}
    dark = script(browser, "return getComputedStyle(document.body).backgroundColor") == "rgb(16, 20, 26)"
    assert dark == (theme == "dark")
