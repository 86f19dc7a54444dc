"""The console page in headless Chromium over a real server. Whatever a test does, an error on the browser's console, a
violation of the page's policy or a script's exception fails it."""

import json
import re

import pytest
from console_browser import assert_no_sideways_scroll, finish, generate
from playwright.sync_api import expect

STORY = "Once upon a time there was a little fox who"


def events_of(server, **fields) -> list[dict]:
    """The trace of a streamed completion, asked for without a browser."""
    entries = []
    body = {"stream": True, "nsa_trace": True, **fields}
    with server.client() as client, client.stream("POST", "/v1/completions", json=body) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    entries += choice.get("nsa_trace", [])
    return entries


def tokens_of(server, text: str) -> list[int]:
    with server.client() as client:
        return client.post("/tokenize", json={"prompt": text}).json()["tokens"]


def text_of(server, tokens: list[int]) -> str:
    with server.client() as client:
        return client.post("/detokenize", json={"tokens": tokens}).json()["prompt"]


def chosen(entry: dict, layers: list[int] | None = None) -> dict[int, float]:
    """Block -> share of the (layer, head) pairs that chose it; of all layers, or of some."""
    lists = [blocks for of in entry["layers"] if layers is None or of["layer"] in layers for blocks in of["blocks"]]
    return {block: sum(block in blocks for blocks in lists) / len(lists) for block in set().union(*lists)}


def drawn(page) -> dict[int, float]:
    """The same as the strip shows it."""
    cells = page.locator("#strip i.chosen").evaluate_all(
        "all => all.map(cell => [Number(cell.dataset.block), parseFloat(cell.style.getPropertyValue('--share'))])")
    return {block: (share - 25) / 75 for block, share in cells}


# --- writing -----------------------------------------------------------------------------------------------------


def test_an_answer_streams_and_its_figures_are_the_servers(server, visit):
    page = visit(server)
    expect(page.locator("#model")).to_have_text("nsa-story-27m · 8,192 tokens")
    generate(page, STORY, temperature=0, max_tokens=40)
    expect(page.locator("#answer span").nth(2)).to_be_visible()
    finish(page)
    with server.client() as client:
        answer = client.post("/v1/completions", json={"prompt": STORY, "temperature": 0, "max_tokens": 40}).json()
    assert page.locator("#answer").text_content() == answer["choices"][0]["text"]
    expect(page.locator("#figure-prompt")).to_have_text(str(answer["usage"]["prompt_tokens"]))
    for figure in ("first", "speed", "cached"):
        expect(page.locator(f"#figure-{figure}")).to_have_text(re.compile(r"^\d"))


def test_stop_ends_the_answer_and_frees_its_pages(server, visit):
    page = visit(server)
    generate(page, STORY, max_tokens=4000, seed=1)
    expect(page.locator("#answer span").nth(20)).to_be_visible()
    page.click("#stop")
    expect(page.locator("#status")).to_have_text("Stopped.")
    expect(page.locator("#send")).to_be_enabled()
    server.wait_until_idle()
    length = len(page.locator("#answer").text_content())
    generate(page, STORY, max_tokens=4)  # works again, and nothing of the other answer is left
    finish(page)
    assert len(page.locator("#answer").text_content()) < length


def test_sampling_fields_are_sent_and_refusals_are_shown(server, visit):
    page = visit(server, allowed="status of 400")
    numbers = {"temperature": 0.72, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "presence_penalty": 0.55,
               "frequency_penalty": -0.2, "repetition_penalty": 1.1, "seed": 3, "max_tokens": 2}
    fields = page.locator(".fields input[type=number]").evaluate_all("all => all.map(field => field.id)")
    assert set(fields) == set(numbers)
    with page.expect_request("**/v1/completions") as request:
        generate(page, STORY, **numbers, stop_text="\\n\\n")
    sent = request.value.post_data_json
    assert {name: sent[name] for name in (*numbers, "stop")} == {**numbers, "stop": "\n\n"}
    finish(page)
    for name in fields:
        page.fill(f"#{name}", "")
    with page.expect_request("**/v1/completions") as request:
        generate(page, STORY, stop_text="")
    assert not set(request.value.post_data_json) & {*numbers, "stop"}
    finish(page)
    generate(page, STORY, presence_penalty=2.5)
    expect(page.locator("#problem")).to_contain_text("presence_penalty")
    page.fill("#presence_penalty", "")
    generate(page, STORY, max_tokens=9000)
    expect(page.locator("#problem")).to_contain_text("9000")


def test_a_text_from_disk_stands_before_the_prompt(server, visit, tmp_path):
    text = "The old woman opened the door. " * 100
    (tmp_path / "long.txt").write_text(text)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    page = visit(server)
    page.set_input_files("#file", tmp_path / "latin.txt")
    expect(page.locator("#problem")).to_have_text("latin.txt is not a text in UTF-8.")
    page.set_input_files("#file", tmp_path / "long.txt")
    expect(page.locator("#document-size")).to_have_text(f"3.03 KiB · {len(tokens_of(server, text)):,} tokens")
    with page.expect_request("**/v1/completions") as request:
        generate(page, "And then", max_tokens=1)
    assert request.value.post_data_json["prompt"] == tokens_of(server, f"{text.strip()}\n\nAnd then")
    finish(page)
    page.click("#document-remove")
    expect(page.locator("#document")).to_be_hidden()


def test_a_chat_keeps_its_turns(server, visit):
    page = visit(server, "#chat")
    page.fill("#system", "A tale.")
    generate(page, "Who lives in the wood?", temperature=0, max_tokens=8)
    finish(page)
    answer = page.locator("#messages .assistant .answer").text_content()
    with page.expect_request("**/v1/chat/completions") as request:
        generate(page, "And then?")
    assert request.value.post_data_json["messages"] == [
        {"role": "system", "content": "A tale."}, {"role": "user", "content": "Who lives in the wood?"},
        {"role": "assistant", "content": answer}, {"role": "user", "content": "And then?"}]
    finish(page)
    expect(page.locator("#messages li")).to_have_count(4)
    expect(page.locator("#reading")).to_have_class(re.compile("has-trace"))
    page.click("#clear")
    expect(page.locator("#messages li")).to_have_count(0)
    expect(page.locator("#status")).to_be_empty()
    expect(page.locator("#reading")).not_to_have_class(re.compile("has-trace"))


def test_a_message_that_gets_no_answer_stays_in_the_composer(server, visit, tmp_path):
    (tmp_path / "note.txt").write_text("The mill is old.")
    page = visit(server, allowed="status of (400|503)")
    generate(page, STORY, temperature=0, max_tokens=4)  # its answer must not be taken for one of the chat
    finish(page)
    page.click("text=Chat")

    def expect_nothing_lost(message: str, turns: int) -> None:
        expect(page.locator("#send")).to_be_enabled()
        expect(page.locator("#messages li")).to_have_count(2 * turns)
        expect(page.locator("#prompt")).to_have_value(message)
        expect(page.locator("#document-name")).to_have_text("note.txt")
        expect(page.locator("#document")).to_be_visible()

    def send_and_expect_turns(message: str, content: str, turns: list[str]) -> None:
        with page.expect_request("**/v1/chat/completions") as request:
            generate(page, message)
        assert [turn["content"] for turn in request.value.post_data_json["messages"]] == [*turns, content]
        finish(page)
        expect(page.locator("#prompt")).to_have_value("")
        expect(page.locator("#document")).to_be_hidden()

    refuse = {"status": 503, "json": {"error": {"message": "Try later."}}}
    turns = []
    for number in (1, 2):
        page.set_input_files("#file", tmp_path / "note.txt")
        expect(page.locator("#document-size")).to_contain_text("tokens")
        page.route("**/tokenize", lambda route: route.fulfill(**refuse))
        generate(page, "Not read.")
        expect(page.locator("#problem")).to_have_text("Try later.")
        expect_nothing_lost("Not read.", number - 1)
        page.unroute("**/tokenize")
        page.route("**/tokenize", lambda route: None)  # never answered
        generate(page, "Stopped.")
        expect(page.locator("#status")).to_contain_text("Reading")
        page.click("#stop")
        expect_nothing_lost("Stopped.", number - 1)
        page.unroute("**/tokenize")
        generate(page, "Too long. " * 9000)
        expect(page.locator("#problem")).to_contain_text("8192")
        expect_nothing_lost("Too long. " * 9000, number - 1)
        content = f"The mill is old.\n\nAnswered {number}."
        send_and_expect_turns(f"Answered {number}.", content, turns)
        turns += [content, page.locator("#messages .assistant .answer").last.text_content()]
    assert all(turns)


# --- what a token read -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tale(server):
    """A prompt of some 22 blocks, of which a layer chooses 16."""
    return "".join(f"On day {i} the {animal} went to the {place}. "
                   for i, (animal, place) in enumerate([("fox", "mill"), ("hare", "sea"), ("king", "wood")] * 35))


def test_the_strip_marks_exactly_the_blocks_of_the_events(server, visit, tale):
    page = visit(server)
    generate(page, tale, temperature=0, max_tokens=4)
    finish(page)
    entries = events_of(server, prompt=tale, temperature=0, max_tokens=4)
    assert len(entries) == 4
    for index in range(3, -1, -1):
        expect(page.locator("#token-number")).to_have_text(f"{index + 1} of 4")
        expect(page.locator("#strip i:not(.unseen)")).to_have_count(entries[index]["position"] // 64 + 1)
        assert drawn(page) == pytest.approx(chosen(entries[index]))
        read, dense = (sum(entry[f"kv_{kind}_bytes"] for entry in entries[:index + 1]) for kind in ("read", "dense"))
        assert page.locator("#total-less").text_content() in (f"{dense / read:.1f}× less", f"{read / dense:.1f}× more")
        if index:
            page.click("#earlier")
    for layer in (0, 5):
        page.get_by_label("Layers shown").select_option(str(layer))
        assert drawn(page) == pytest.approx(chosen(entries[0], [layer]))
        assert len(drawn(page)) == 16


def test_tokens_that_a_stop_text_cuts_off_are_said_to_be_missing(server, visit):
    page = visit(server)
    wish = {"prompt": STORY, "temperature": 0, "max_tokens": 12}
    with server.client() as client:
        text = client.post("/v1/completions", json=wish).json()["choices"][0]["text"]
        stop = " " + text.split()[4]  # a token begins with its space
        generated = client.post("/v1/completions", json={**wish, "stop": stop}).json()["usage"]["completion_tokens"]
    traced = len(events_of(server, **wish, stop=stop))
    assert 0 < traced < generated
    generate(page, STORY, temperature=0, max_tokens=12, stop_text=stop)
    missing = generated - traced
    expect(page.locator("#status")).to_have_text(
        f"Done: {generated} tokens, {missing} of them cut off and not in the strip.")
    expect(page.locator("#token-number")).to_have_text(f"{traced} of {traced}")
    generate(page, STORY, stop_text="")
    expect(page.locator("#status")).to_have_text("Done: 12 tokens.")
    expect(page.locator("#token-number")).to_have_text("12 of 12")


def test_a_range_of_layers_marks_the_union_of_what_they_chose(server, visit, tale):
    page = visit(server)
    generate(page, tale, temperature=0, max_tokens=1)
    finish(page)
    layers = page.get_by_label("Layers shown")
    assert layers.locator("option").all_text_contents() == [
        "All layers", "Layers 0, 1", "Layers 2, 3", "Layers 4, 5", *(f"Layer {layer}" for layer in range(6))]
    entry = events_of(server, prompt=tale, temperature=0, max_tokens=1)[0]
    for first in (0, 2, 4):
        layers.select_option(f"Layers {first}, {first + 1}")
        union = chosen(entry, [first, first + 1])
        assert drawn(page) == pytest.approx(union)
        parts = [set(chosen(entry, [layer])) for layer in (first, first + 1)]
        assert set(union) == parts[0] | parts[1] and parts[0] != parts[1]
    assert set(union) != set(chosen(entry))
    inked = page.locator("#history").evaluate(  # the blocks whose alpha is not 0
        "c => [...c.getContext('2d').getImageData(0, 0, c.width, 1).data]"
        ".flatMap((value, i) => i % 4 === 3 && value ? i >> 2 : [])")
    assert inked == sorted(union)


def test_a_block_shows_its_text_to_pointer_and_keys(server, visit, tale):
    page = visit(server)
    tokens = tokens_of(server, tale)
    generate(page, tale, temperature=0, max_tokens=3)
    finish(page)
    page.hover("#strip i[data-block='3']")
    expect(page.locator("#block-where")).to_contain_text("Block 3 · tokens 192 to 255")
    expect(page.locator("#block-text")).to_have_text(text_of(server, tokens[192:256]), use_inner_text=True)
    page.focus("#strip")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#block-text")).to_have_text(text_of(server, tokens[256:320]), use_inner_text=True)
    expect(page.locator("#strip")).to_have_attribute("aria-valuetext", re.compile("Block 4 · tokens 256 to 319 .*: .+"))
    page.keyboard.press("End")  # the block of the query, as far as it sees it
    expect(page.locator("#block-where")).to_contain_text("in the window")
    entries = events_of(server, prompt=tale, temperature=0, max_tokens=3)
    context = tokens + [entry["token_id"] for entry in entries]
    end = entries[-1]["position"] + 1
    expect(page.locator("#block-text")).to_have_text(text_of(server, context[(end - 1) // 64 * 64:end]),
                                                     use_inner_text=True)


def test_the_needle_lights_up(server, visit):
    page = visit(server)
    chapter = page.request.get(f"{server.http}/console/demo_chapter.txt").text()
    short = "\n\n".join(chapter.split("\n\n")[:14])  # the whole one takes seconds
    page.route("**/console/demo_chapter.txt", lambda route: route.fulfill(body=short))
    page.click("#demo")
    expect(page.locator("#document-size")).to_contain_text("tokens")
    number = re.search(r"lantern is (\d{5})", page.locator("#document-size").text_content()).group(1)
    page.click("#send")
    finish(page)
    assert number in page.locator("#answer").text_content()
    expect(page.locator("#block-text mark")).to_have_text(f"The secret number of the silver lantern is {number}.")
    page.click("#planted-layer")
    expect(page.locator("#strip i.planted.chosen").first).to_be_visible()


def test_sixty_four_thousand_tokens(server, visit):
    """A thousand blocks and 200 tokens of 64 (layer, head) pairs: made up, but for the page as from a server."""
    nsa = {"num_layers": 32, "num_kv_heads": 2, "block_tokens": 64, "window_tokens": 512, "num_selected_blocks": 16,
           "span_tokens": 32, "span_stride": 16}
    first = 65_536 - 201
    entries = [{"token_id": 300, "position": first + i, "kv_read_bytes": 1, "kv_dense_bytes": 12, "layers": [
        {"layer": layer, "blocks": [[0, *range(10 + i, 23 + i), 1022, 1023], [0, *range(100, 113), 1022, 1023]]}
        for layer in range(32)]} for i in range(200)]
    chunks = [{"choices": [{"index": 0, "text": " a", "nsa_trace": [entry]}]} for entry in entries]
    stream = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    model = {"id": "long", "max_model_len": 65_536, "nsa": nsa}
    page = visit(server, "#engine")
    page.route("**/v1/models", lambda route: route.fulfill(json={"data": [model]}))
    page.route("**/tokenize", lambda route: route.fulfill(json={"tokens": [300] * (first + 1)}))
    page.route("**/v1/completions", lambda route: route.fulfill(body=stream))
    page.goto(f"{server.http}/#complete")
    page.reload()
    generate(page, "a")
    finish(page)
    expect(page.locator("#token-number")).to_have_text("200 of 200")
    expect(page.locator("#strip i")).to_have_count(1024)
    assert drawn(page) == pytest.approx(chosen(entries[-1]))
    assert page.locator("#layers option").all_text_contents()[1:5] == [
        "Layers 0 to 7", "Layers 8 to 15", "Layers 16 to 23", "Layers 24 to 31"]
    last_window = page.locator("#strip i.in-window").evaluate_all("all => all.map(cell => Number(cell.dataset.block))")
    assert last_window == list(range((entries[-1]["position"] - 511) // 64, 1024))
    start = page.evaluate("performance.now()")
    page.focus("#token")
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("#token-number")).to_have_text("180 of 200")
    assert drawn(page) == pytest.approx(chosen(entries[179]))
    assert page.evaluate("performance.now()") - start < 10_000
    assert_no_sideways_scroll(page)


def test_full_attention_has_no_strip(serve, visit):
    server = serve("--attention=full")
    page = visit(server)
    expect(page.locator("#no-reading")).to_contain_text("full attention")
    expect(page.locator("#reading")).to_be_hidden()
    with page.expect_request("**/v1/completions") as request:
        generate(page, STORY, max_tokens=2)
    assert "nsa_trace" not in request.value.post_data_json
    finish(page)
