"""The console page as such: keys, the engine's view, light and dark, phones, the keyboard. As in console_test.py, any
error on the browser's console fails a test."""

import re

import pytest
from console_browser import assert_no_sideways_scroll, finish, generate
from playwright.sync_api import expect

KEY = "key-of-the-console-test"
PHONE = {"width": 360, "height": 740}
STORY = "Once upon a time there was a little fox who"


def test_a_key_is_asked_for_kept_in_the_tab_and_sent(serve, visit, tmp_path):
    (tmp_path / "keys").write_text(KEY + "\n")
    server = serve(f"--api-key-file={tmp_path / 'keys'}", "--protect-probes=on")
    page = visit(server, allowed="status of 401")
    expect(page.locator("#problem")).to_be_visible()
    expect(page.locator("#key")).to_be_focused()
    page.keyboard.type("wrong-key")
    page.keyboard.press("Enter")
    expect(page.locator("#problem")).to_be_visible()
    page.fill("#key", KEY)
    page.keyboard.press("Enter")
    expect(page.locator("#model")).to_contain_text("nsa-story-27m")
    expect(page.locator("#problem")).to_be_hidden()
    assert page.evaluate("[...Object.values(sessionStorage), ...Object.values(localStorage)]") == [KEY]
    page.reload()
    generate(page, STORY, max_tokens=2)
    finish(page)
    page.click("text=Engine")
    expect(page.locator("#m-ended")).to_have_text("1")


def test_without_the_console_there_is_no_page(serve):
    server = serve("--console=off")
    with server.client() as client:
        assert client.get("/").status_code == 404
        assert client.get("/console/main.js").status_code == 404
        assert client.get("/version").status_code == 200


def test_a_page_that_is_opened_before_its_server_waits_for_it(server, visit):
    page = visit(server, allowed="ERR_CONNECTION_REFUSED|status of 503")
    models, problem = "**/v1/models", page.locator("#problem")
    page.route(models, lambda route: route.abort("connectionrefused"))
    page.reload()
    expect(problem).to_have_text("The server cannot be reached.")
    page.route(models, lambda route: route.fulfill(status=503, json={"error": {"message": "The model is loaded."}}))
    expect(problem).to_have_text("The model is loaded.")
    page.route(models, lambda route: route.continue_())
    expect(page.locator("#model")).to_contain_text("nsa-story-27m")
    expect(problem).to_be_hidden()


def test_another_view_while_an_answer_streams(server, visit):
    page = visit(server)
    for _ in range(3):
        generate(page, STORY, max_tokens=600, seed=1)
        expect(page.locator("#reading")).to_have_class(re.compile("has-trace"))
        page.click("text=Chat")  # ends the answer; what was to be drawn of it is not drawn
        page.wait_for_timeout(100)
        page.click("text=Complete")


def test_a_file_beyond_the_limit_is_refused_unread(server, visit):
    page = visit(server)
    page.set_input_files("#file", {"name": "long.txt", "mimeType": "text/plain", "buffer": b"a" * ((1 << 20) + 1)})
    expect(page.locator("#problem")).to_contain_text("long.txt has 1.00 MiB; at most 1.00 MiB")


def test_the_engine_is_seen_at_work(server, visit):
    page = visit(server, "#engine")
    expect(page.locator("#m-running")).to_have_text("0")
    expect(page.locator("#engine-about")).to_contain_text("attention nsa")
    before = int(page.locator("#m-ended").text_content().replace(",", ""))
    writer = visit(server)
    generate(writer, STORY, max_tokens=4000, seed=1)
    expect(page.locator("#m-running")).to_have_text("1")
    expect(page.locator("#m-generated")).to_have_text(re.compile("^[1-9]"))
    expect(page.locator("#m-steps")).to_have_text(re.compile("^[1-9]"))
    expect(page.locator("#m-pages")).to_have_text(re.compile("^[1-9].* owned"))
    writer.click("#stop")
    expect(page.locator("#m-running")).to_have_text("0")
    expect(page.locator("#m-ended")).to_have_text(f"{before + 1:,}")
    assert len(page.locator("#spark-generated polyline").get_attribute("points").split()) > 1


def contrast(page, selector: str) -> float:
    """Of an element's text on the page's ground (WCAG 2)."""
    colors = page.locator(selector).first.evaluate(
        "e => [getComputedStyle(e).color, getComputedStyle(document.body).backgroundColor]")
    luminances = []
    for color in colors:
        channels = [int(value) / 255 for value in re.findall(r"\d+", color)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        luminances.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(luminances) + 0.05) / (min(luminances) + 0.05)


@pytest.mark.parametrize("scheme, ground, other", [("light", "rgb(251, 251, 249)", "rgb(18, 21, 19)"),
                                                   ("dark", "rgb(18, 21, 19)", "rgb(251, 251, 249)")])
def test_light_and_dark(server, visit, scheme, ground, other):
    page = visit(server, color_scheme=scheme)
    body = page.locator("body")
    expect(body).to_have_css("background-color", ground)
    for selector in ("h1", "#model", ".figures dt", "#status", "nav a", ".empty"):
        assert contrast(page, selector) >= 4.5, selector
    page.click("#theme")
    expect(body).to_have_css("background-color", other)
    page.reload()
    expect(body).to_have_css("background-color", other)
    assert contrast(page, ".less") >= 4.5


def test_a_phone_needs_no_sideways_scroll(server, visit):
    page = visit(server, viewport=PHONE, has_touch=True, is_mobile=True)
    page.tap("#sampling summary")
    generate(page, STORY * 40, max_tokens=12)
    finish(page)
    expect(page.locator("#strip i").first).to_be_visible()
    page.tap("#strip i[data-block='2']")
    expect(page.locator("#block-where")).to_contain_text("Block 2")
    page.select_option("#layers", "2-3")
    assert_no_sideways_scroll(page)
    page.tap("#key-button")
    assert_no_sideways_scroll(page)
    for view in ("Chat", "Engine"):
        page.tap(f"text={view}")
        assert_no_sideways_scroll(page)


def tab_to(page, selector: str, key: str = "Tab") -> None:
    """Presses Tab until the element has the focus."""
    for _ in range(40):
        page.keyboard.press(key)
        if page.locator(selector).evaluate("e => e === document.activeElement"):
            return
    raise AssertionError(f"Tab does not reach {selector}")


def test_the_keyboard_is_enough(server, visit):
    page = visit(server)
    expect(page.locator("#model")).not_to_be_empty()
    tab_to(page, "#prompt")
    page.keyboard.type(STORY)
    page.keyboard.insert_text(f" {STORY}" * 20)
    tab_to(page, "#temperature")
    page.keyboard.type("0")  # an answer that goes on
    tab_to(page, "#max_tokens")
    page.keyboard.press("Control+A")
    page.keyboard.type("3000")
    tab_to(page, "#send", "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#answer span").nth(20)).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_have_text("Stopped.")
    tab_to(page, "#layers")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#strip i.chosen").first).to_be_visible()
    tab_to(page, "#strip")
    page.keyboard.press("Home")
    expect(page.locator("#strip")).to_have_attribute("aria-valuetext", re.compile("Block 0 · tokens 0 to 63 · chosen"))
    page.keyboard.press("PageDown")
    expect(page.locator("#strip i.inspected.chosen:not([data-block='0'])")).to_have_count(1)
    tab_to(page, "#token")
    before = page.locator("#token-number").text_content()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#token-number")).not_to_have_text(before)


def test_every_control_has_a_name(server, visit):
    page = visit(server)
    expect(page.locator("#model")).not_to_be_empty()
    unnamed = page.locator("button, input, select, textarea, [role=slider]").evaluate_all(
        "all => all.filter(e => !(e.labels?.length || e.ariaLabel || e.textContent.trim() || e.id === 'planted-layer'))"
        ".map(e => e.outerHTML)")
    assert unnamed == []
