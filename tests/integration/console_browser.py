"""A browser for the tests of the console page, and what they all do there."""

import re
import shutil

import pytest
from playwright.sync_api import expect, sync_playwright
from server_process import ServerProcess


@pytest.fixture(scope="module")  # its event loop must be gone before other modules have theirs
def chromium():
    path = shutil.which("chromium")
    assert path, "chromium is missing: tools/install_packages.sh test"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture
def serve():
    """serve(*flags) -> a server of the test's own, which ends with it."""
    running = []

    def serve(*flags):
        running.append(ServerProcess(*flags))
        return running[-1]

    yield serve
    assert [server.terminate() for server in running] == [0] * len(running)


@pytest.fixture
def visit(chromium):
    """visit(server, fragment, allowed=pattern of console errors, **options of the browser context) -> page."""
    contexts, problems = [], []

    def visit(server, fragment="", allowed="$^", **options):
        context = chromium.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()

        def on_console(message):
            if message.type in ("error", "warning") and not re.search(allowed, message.text):
                problems.append(message.text)

        page.on("console", on_console)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{server.http}/{fragment}")
        return page

    expect.set_options(timeout=20_000)
    yield visit
    for context in contexts:
        context.close()
    assert not problems


def generate(page, prompt: str, **fields) -> None:
    """Starts an answer."""
    page.fill("#prompt", prompt)
    for name, value in fields.items():
        page.fill(f"#{name}", str(value))
    page.click("#send")


def finish(page) -> None:
    expect(page.locator("#status")).to_have_text(re.compile(r"^Done: "))


def assert_no_sideways_scroll(page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
