"""Takes the pictures of the console in docs/images: console_pictures.py BUILD_DIR MODEL_DIR.

Needs Chromium and Playwright, which `make test` installs. Fonts are those of the machine that it runs on.
"""

import pathlib
import shutil
import sys

from demo import start_server
from playwright.sync_api import Page, expect, sync_playwright

IMAGES = pathlib.Path(__file__).resolve().parents[1] / "docs" / "images"
TIMEOUT_MS = 300_000  # of an answer on a busy machine
# name: options of the browser context
PICTURES = {
    "console_light": {"viewport": {"width": 1180, "height": 900}, "color_scheme": "light", "device_scale_factor": 1.5},
    "console_dark": {"viewport": {"width": 1180, "height": 900}, "color_scheme": "dark", "device_scale_factor": 1.5},
    "console_phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "device_scale_factor": 1.5},
}


def ask_for_the_needle(page: Page) -> None:
    """Runs the needle demo and steps back to the first digit of the answer, as the layer that finds it sees it."""
    page.click("#demo")
    expect(page.locator("#document-size")).to_contain_text("tokens")
    page.click("#send")
    expect(page.locator("#status")).to_contain_text("Done", timeout=TIMEOUT_MS)
    page.click("#planted-layer")
    while not page.locator("#token-number").text_content().startswith("2 of"):
        page.click("#earlier")
    expect(page.locator("#block-text mark")).to_be_visible()
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)  # until colours have faded in


def main() -> int:
    server, address = start_server(pathlib.Path(sys.argv[1]), sys.argv[2], "HTTP")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
            for name, options in PICTURES.items():
                page = browser.new_context(**options).new_page()
                page.add_init_script("Math.random = () => 0.55")  # the depth
                page.goto(address)
                ask_for_the_needle(page)
                page.screenshot(path=IMAGES / f"{name}.png", full_page=True)
            browser.close()
    finally:
        server.terminate()
        server.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
