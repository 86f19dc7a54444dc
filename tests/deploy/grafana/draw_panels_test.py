"""deploy/grafana/draw_panels.py draws what a Prometheus answers: here an HTTP server with canned answers."""

import contextlib
import http.server
import json
import struct
import sys
import threading
import urllib.parse

import pytest
from monitoring import draw_panels

MIB = 2**20
PANELS = {panel["title"]: panel for panel in draw_panels.load_board()["panels"] if panel["type"] != "row"}
LABELS = dict.fromkeys(("instance", "method", "route", "code", "reason", "state", "phase"), "x")
# What a query has in it: the labels of each series and its last three values; any other query: one series of ones.
CANNED = {
    "process_resident_memory_bytes": [({"instance": "a:1"}, [2 * MIB, 3 * MIB, 4 * MIB])],
    "vllm:request_success_total": [({"finished_reason": "stop"}, [1, 2, 3]), ({"finished_reason": "abort"}, [0, 1, 0]),
                                   ({"finished_reason": "error"}, [0, 0, 0])],
    "vllm:prefix_cache_hits_total": [({}, ["NaN", 0.25, 0.5])],
    "vllm:num_preemptions_total": [({"instance": "a:1"}, [0, 0, 0])],
    "nsa_kv_bytes_dense_total{": [({}, [1.5, 2, 2.25])],
    "nsa_build_info": [({"__name__": "nsa_build_info", "engine": "0", "version": "1.0", "instance": "a:1"}, [1, 1, 1])],
    "up{": [],
}


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        asked = dict(urllib.parse.parse_qsl(url.query))
        self.server.asked.append((url.path, asked))
        end, step = float(asked["end"]), float(asked["step"])
        found = next((series for part, series in CANNED.items() if part in asked["query"]), [(LABELS, [1, 1, 1])])
        result = [{"metric": labels, "values": [[end - (2 - i) * step, str(value)] for i, value in enumerate(values)]}
                  for labels, values in found]
        self.send_response(200 if self.server.is_well else 400)
        self.end_headers()
        self.wfile.write(json.dumps({"status": "success", "data": {"result": result}}).encode())

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def prometheus(is_well: bool = True):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.is_well, server.asked, server.address = is_well, [], f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def drawn():
    """The axes of each panel by its title, and what Prometheus was asked for."""
    with prometheus() as server:
        figure = draw_panels.draw(server.address, 10, "30s")
    return {axes.get_title(loc="left"): axes for axes in figure.axes}, server.asked


def lines(axes) -> dict[str, tuple[list[float], list[float]]]:
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


def test_every_panel_has_its_place(drawn):
    panels, _ = drawn
    assert set(panels) == set(PANELS)
    boxes = [axes.get_position() for axes in panels.values()]
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)
    assert not any(a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1
                   for i, a in enumerate(boxes) for b in boxes[:i])


def test_every_query_is_asked_with_its_variables_filled_in(drawn):
    _, asked = drawn
    assert {path for path, _ in asked} == {"/api/v1/query_range"}
    expected = [draw_panels.fill_in(target["expr"], "30s") for panel in PANELS.values() for target in panel["targets"]]
    assert [parameters["query"] for _, parameters in asked] == expected
    assert not any("$" in query for query in expected) and any("[30s]" in query for query in expected)
    assert {float(parameters["step"]) for _, parameters in asked} == {5}
    assert {round(float(parameters["end"]) - float(parameters["start"])) for _, parameters in asked} == {600}


def test_a_line_in_the_units_of_its_panel(drawn):
    panels, _ = drawn
    assert panels["Memory"].get_ylabel() == "MiB"
    [(label, (minutes, values))] = lines(panels["Memory"]).items()
    assert (label, values) == ("a:1", [2, 3, 4]) and minutes == pytest.approx([-10 / 60, -5 / 60, 0], abs=1e-3)
    assert panels["Memory"].get_xlim() == (-10, 0) and panels["Memory"].get_ylim() == pytest.approx((0, 4.2))


def test_what_is_no_number_is_left_out(drawn):
    panels, _ = drawn
    axes = panels["Prompt tokens found in the cache"]
    assert [values for _, values in lines(axes).values()] == [[25, 50]] and axes.get_ylim() == (0, 105)


def test_what_never_happened_has_no_line_beside_what_did(drawn):
    panels, _ = drawn
    ended = panels["Requests that ended"]
    assert [text.get_text() for text in ended.get_legend().get_texts()] == ["stop", "abort"]
    assert max(y for area in ended.collections for y in area.get_paths()[0].vertices[:, 1]) == 3  # stacked: 1, 3, 3
    assert lines(panels["Preemptions"])["a:1"][1] == [0, 0, 0]  # alone, it is shown
    assert not lines(panels["Answers scrapes"])


def test_numbers_and_labels(drawn):
    panels, _ = drawn
    [number] = panels["Since the start"].texts
    [labels] = panels["What runs"].texts
    assert number.get_text() == "2.25 times less"
    assert labels.get_text() == "instance: a:1\nversion: 1.0"


def test_the_command_writes_a_picture(monkeypatch, tmp_path):
    picture = tmp_path / "board.png"
    with prometheus() as server:
        monkeypatch.setattr(sys, "argv", ["draw_panels.py", server.address + "/", str(picture), "--minutes=5"])
        draw_panels.main()
    header = picture.read_bytes()[:24]
    width, height = struct.unpack(">II", header[16:])
    assert header[:8] == b"\x89PNG\r\n\x1a\n" and width == 1200 and height > 1200


def test_a_refused_query_is_no_empty_panel():
    with prometheus(is_well=False) as server, pytest.raises(OSError):
        draw_panels.draw(server.address, 10, "30s")
