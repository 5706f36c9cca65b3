"""Headless Chromium, as Debian packages it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Dialog, Page, sync_playwright

# Without these it looks for its maker's servers at every start.
_QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip

# The elements whose text is hard to read on what is behind it: below the 4.5 of WCAG 2.2, 1.4.3.
_PALE = """() => {
  const rgba = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const own = (e) => [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.textContent.trim());
  return [...document.querySelectorAll("body *")].filter((e) => own(e) && e.checkVisibility()).flatMap((e) => {
    const [a, b] = [light(rgba(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    return contrast < 4.5 ? [`${e.tagName} ${e.className}: ${contrast.toFixed(2)} ${e.textContent.slice(0, 30)}`] : [];
  });
}"""


def installed() -> str:
    """Where it is; the test is skipped where it is not."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    return program


@contextmanager
def chromium(program: str) -> Iterator[Browser]:
    """A browser. While it is open the thread has an event loop: no other can be run in it."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=list(_QUIET))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """The page, in a window with nothing kept from others; whatever it complains about, or asks, fails the test."""
    complaints: list[str] = []
    with browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options}) as context:
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: _dismissed(dialog, complaints))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.goto(url)
        yield page
    # A server that is away is what some tests are about.
    assert [one for one in complaints if "net::ERR_" not in one] == []


def _dismissed(dialog: Dialog, complaints: list[str]) -> None:
    complaints.append(dialog.message)
    dialog.dismiss()


def pale(page: Page) -> list[str]:
    """Texts that have too little contrast."""
    found: list[str] = page.evaluate(_PALE)
    return found


def wider_than_the_window(page: Page) -> int:
    """How many pixels must be scrolled sideways."""
    pixels: int = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return pixels
