"""The page in a real browser, served by a daemon at work."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.broker import free_port
from tests.browser import chromium, installed, opened, pale, wider_than_the_window
from tests.e2e.making import MakeStack
from tests.e2e.processes import DaemonProcess
from tests.e2e.stack import Stack

ATTACK = '<img src=x onerror="alert(1)"><script>alert(2)</script>'
# Of a finger, in CSS pixels. Source: WCAG 2.2, 2.5.8.
SMALLEST_TARGET = 24
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
_NUMBERS = itertools.count(1)
# The smallest y, which is the highest point, of a path.
_HIGHEST = """((path) => Math.min(
  ...[...document.querySelector(path).getAttribute("d").matchAll(/[ML][\\d.]+ ([\\d.]+)/g)].map((at) => Number(at[1]))
))"""

expect.set_options(timeout=15_000)


@pytest.fixture(scope="module")
def program() -> str:
    return installed()


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def stack(program: str, make_stack: MakeStack, port: int) -> Stack:  # noqa: ARG001 - where there is no browser, no stack
    made = make_stack({"web": {"enabled": True, "listen": f"127.0.0.1:{port}"}})
    made.start()
    made.daemon.until_logged("web.listening")
    return made


@pytest.fixture(scope="module")
def browser(program: str, stack: Stack) -> Iterator[Browser]:  # noqa: ARG001 - the stack must be made before
    with chromium(program) as found:
        yield found


@pytest.fixture
def url(stack: Stack, port: int) -> str:  # noqa: ARG001 - it serves
    return f"http://localhost:{port}/"


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    with opened(browser, url) as found:
        yield found


def someone(stack: Stack, **values: Any) -> str:
    """A new contact that the replica has."""
    record_id = stack.org.create("Contact", **{"LastName": f"Quill {next(_NUMBERS)}", **values})
    stack.until_change(record_id, "create")
    return record_id


def test_a_change_appears_by_itself(page: Page, stack: Stack) -> None:
    """What stands at first, then what happens, without a reload."""
    expect(page.locator("#headline-text")).to_have_text("All is well")
    expect(page.locator("#objects tr")).to_have_count(4)
    expect(page.get_by_role("meter")).to_have_attribute("aria-valuetext", re.compile(r"\d+ of 15,000 calls"))
    expect(page.get_by_role("img", name=re.compile("Lag"))).to_be_visible()
    page.evaluate("() => { window.notReloaded = true }")
    stack.org.create("Contact", FirstName="Ada", LastName="Livewire")
    expect(page.locator("#changes li", has_text="Ada Livewire")).to_be_visible()
    assert page.evaluate("() => window.notReloaded") is True


def test_records_are_found_and_show_their_past(page: Page, stack: Stack) -> None:
    """Search as one types, a record, its history, which goes on while one looks."""
    record_id = someone(stack, FirstName="Grace", LastName="Searchable", Phone="555-0100")
    page.get_by_role("link", name="Records").click()
    page.locator("#object").select_option("Contact")
    page.get_by_role("searchbox").fill("searchab")
    expect(page.locator("#records li")).to_have_count(1)
    link = page.get_by_role("link", name="Grace Searchable")
    link.evaluate("element => element.before = true")
    with page.expect_response(re.compile("/api/records/Contact")):
        page.get_by_role("searchbox").fill("grace searchable")
    expect(page.locator("#found")).to_have_text("1")
    assert link.evaluate("element => element.before")  # what is found again keeps its link
    link.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Grace Searchable")
    expect(page.locator(".fields")).to_contain_text("555-0100")
    stack.org.update("Contact", record_id, Phone="555-0199")
    newest = page.locator(".past > li").first
    expect(newest).to_contain_text("555-0199")
    expect(newest.locator(".before")).to_have_text("555-0100")
    page.go_back()
    expect(page.get_by_role("searchbox")).to_have_value("grace searchable")


def test_the_charts_show_what_happened(page: Page, stack: Stack) -> None:
    """The rate rises where changes came, both lines of the lag have points there, and pointing tells them."""
    people = [someone(stack) for _ in range(3)]
    stack.org.change(*({"op": "update", "object": "Contact", "id": one, "values": {"Phone": "7"}} for one in people))
    shown = page.locator("#rate-chart svg[role=img]")
    expect(shown).to_have_attribute("aria-label", re.compile("over the last quarter of an hour"))
    line = page.locator("#rate-chart path.first")
    # The foot of the chart is at 112; what happened stands above it.
    page.wait_for_function(f"() => {_HIGHEST}('#rate-chart path.first') < 100")
    assert line.get_attribute("d") not in (None, "M0 0")
    for style in ("first", "other"):
        page.wait_for_function(f"() => {_HIGHEST}('#lag-chart path.{style}') < 112")
    expect(page.locator("#lag-chart .scale")).not_to_have_count(0)
    box = page.locator("#rate-chart svg").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
    expect(page.locator("#rate-chart .tip")).to_have_text(re.compile(r"\d\d:\d\d.*: \d+\.\d a second"))
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] - 60)
    expect(page.locator("#rate-chart .tip")).to_have_text("")


def test_a_hostile_value_is_text(page: Page, stack: Stack) -> None:
    """In the overview, in lists, in a record and in its history; nothing of it runs."""
    record_id = someone(stack, LastName=ATTACK)
    expect(page.locator("#changes li", has_text=ATTACK)).to_be_visible()
    page.goto(f"{page.url.partition('#')[0]}#/records/Contact?text=onerror")
    expect(page.locator("#records b", has_text=ATTACK)).to_be_visible()
    page.goto(f"{page.url.partition('#')[0]}#/records/Contact/{record_id}")
    expect(page.get_by_role("heading", level=1)).to_have_text(ATTACK)
    expect(page.locator(".past .value", has_text=ATTACK).first).to_be_visible()
    assert page.locator("main img, main script").count() == 0


def test_commands_show_what_became_of_them(page: Page, stack: Stack) -> None:
    """A conflict with the three sides of each field, in the overview and by status."""
    record_id = someone(stack, Phone="555-0001")
    seen = stack.until_change(record_id).json["data"]["version"]
    stack.org.update("Contact", record_id, Phone="555-0002")
    stack.until_change(record_id, "update")
    ours = {"command_id": "torn", "id": record_id, "fields": {"Phone": "555-0003"}, "base": {"version": seen}}
    stack.watcher.send("blackroad/salesforce/command/Contact/update", {**ours, "sender": "billing"})
    expect(page.locator("#conflicts li")).to_contain_text("Phone")
    page.get_by_role("link", name="Commands").click()
    page.get_by_role("button", name="conflict").click()
    expect(page.get_by_role("button", name="conflict")).to_have_attribute("aria-pressed", "true")
    page.locator("#commands summary").click()
    for value in ("555-0001", "555-0002", "555-0003", "billing"):
        expect(page.locator("#commands")).to_contain_text(value)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_can_be_read(browser: Browser, url: str, stack: Stack, scheme: Any) -> None:
    """No sideways scrolling in any view, whatever the values; enough contrast, light and dark."""
    record_id = someone(stack, LastName="W" * 80, Email=f"{'m' * 60}@example.com")
    with opened(browser, url, color_scheme=scheme, **PHONE) as page:
        for view in ("", "records/Contact?text=W", f"records/Contact/{record_id}", "commands"):
            page.goto(f"{url}#/{view}")
            expect(page.locator("#headline-text")).not_to_have_text("Connecting…")
            expect(page.locator("main > section:visible").last).not_to_be_empty()
            if "records" in view:
                expect(page.locator("main > section:visible").last).to_contain_text("W" * 80)
            assert wider_than_the_window(page) <= 0, view
            assert pale(page) == [], view
        dark = page.evaluate("() => matchMedia('(prefers-color-scheme: dark)').matches")
        assert dark == (scheme == "dark")


def test_a_phone_searches_and_reads_history_and_conflicts(browser: Browser, url: str, stack: Stack) -> None:
    """By touch: what one taps can be hit, is what one gets, and nothing runs out of the window."""
    record_id = someone(stack, FirstName="Pocket", LastName="Findable", Phone="555-1000")
    seen = stack.until_change(record_id).json["data"]["version"]
    stack.org.update("Contact", record_id, Phone="555-2000")
    stack.until_change(record_id, "update")
    ours = {"command_id": "pocket", "id": record_id, "fields": {"Phone": "555-3000"}, "base": {"version": seen}}
    stack.watcher.send("blackroad/salesforce/command/Contact/update", ours)
    with opened(browser, url, **PHONE) as page:
        expect(page.locator("#conflicts li").first).to_contain_text("Phone")
        page.get_by_role("link", name="Records").tap()
        page.locator("#object").select_option("Contact")
        page.get_by_role("searchbox").tap()
        page.get_by_role("searchbox").fill("pocket find")
        expect(page.locator("#found")).to_have_text("1")  # before that it is in the list of all, and about to move up
        found = page.get_by_role("link", name="Pocket Findable")
        box = found.bounding_box()
        assert box is not None
        assert box["height"] >= SMALLEST_TARGET
        found.tap()
        newest = page.locator(".past > li").first
        expect(newest).to_contain_text("555-2000")
        expect(newest.locator(".before")).to_have_text("555-1000")
        assert wider_than_the_window(page) <= 0
        page.get_by_role("link", name="Commands").tap()
        page.get_by_role("button", name="conflict").tap()
        page.locator("#commands summary", has_text="pocket").or_(page.locator("#commands summary").first).first.tap()
        for value in ("555-1000", "555-2000", "555-3000"):
            expect(page.locator("#commands")).to_contain_text(value)
        assert wider_than_the_window(page) <= 0


def test_colours_can_be_chosen_and_are_remembered(page: Page) -> None:
    """Over a reload."""
    behind = "() => getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(behind)
    button = page.get_by_role("button", name="Colours")
    button.click()
    button.click()
    expect(button).to_have_attribute("aria-label", "Colours: dark")
    assert page.evaluate(behind) != before
    page.reload()
    expect(button).to_have_attribute("aria-label", "Colours: dark")


def test_it_works_by_keyboard(page: Page) -> None:
    """The skip link comes first, then the views; what is focused can be seen."""
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    for _ in range(3):
        page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Records")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("searchbox")).to_be_visible()
    expect(page.get_by_role("link", name="Records")).to_have_attribute("aria-current", "page")


def test_the_page_comes_back_after_a_restart(page: Page, stack: Stack) -> None:
    """It says that the connection is lost, finds the daemon again by itself, and goes on."""
    expect(page.locator("#headline-text")).to_have_text("All is well")
    assert stack.daemon.stop() == 0
    expect(page.locator("#connection")).to_be_visible()
    stack.start()
    expect(page.locator("#connection")).to_be_hidden()
    stack.org.create("Contact", FirstName="After", LastName="Restart")
    expect(page.locator("#changes li", has_text="After Restart")).to_be_visible()


def test_a_page_beside_the_daemon_tells_that_it_is_down(browser: Browser, stack: Stack, tmp_path: Path) -> None:
    """`salesforce-sync web` outlives the daemon, reads the replica all the same, and ends with 0."""
    own = free_port()
    process = DaemonProcess(
        tmp_path,
        stack.daemon.settings.read_text("utf-8"),
        {"SALESFORCE_SYNC_WEB__LISTEN": f"127.0.0.1:{own}"},
        command="web",
    )
    process.launch()
    try:
        process.until_logged("web.listening")
        with opened(browser, f"http://127.0.0.1:{own}/") as page:
            expect(page.locator("#headline-text")).to_have_text("All is well")
            assert stack.daemon.stop() == 0
            expect(page.locator("#attention")).to_contain_text("The daemon is offline")
            expect(page.locator("#objects tr")).to_have_count(4)
        assert process.stop() == 0
    finally:
        process.end()
