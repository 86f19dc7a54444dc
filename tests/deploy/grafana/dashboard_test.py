"""deploy/grafana/nsa-serve.json is importable, asks for what exists, and has data of a loaded server in every panel."""

import re

import monitoring
import pytest
from monitoring import draw_panels

BOARD = draw_panels.load_board()
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
VARIABLES = {variable["name"] for variable in BOARD["templating"]["list"]}


def test_it_has_the_rows():
    assert [panel["title"] for panel in BOARD["panels"] if panel["type"] == "row"] == [
        "Traffic", "Latency", "Engine", "Cache", "Sparsity", "Process"]


def test_panels_have_their_own_ids_and_places():
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        right, bottom = place["x"] + place["w"], place["y"] + place["h"]
        cells = {(x, y) for x in range(place["x"], right) for y in range(place["y"], bottom)}
        assert right <= 24 and not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_explains_itself_and_follows_the_variables(panel):
    assert panel["description"] and panel["fieldConfig"]["defaults"]["unit"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
    for item in (panel, *panel["targets"]):
        assert item["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for target in panel["targets"]:
        assert '=~"$job"' in target["expr"]
        assert not re.search(r"\[\d", target["expr"]), "a fixed range hides short spikes"
        assert set(re.findall(r"\$(\w+)", target["expr"])) <= VARIABLES | {"__rate_interval"}


def test_the_data_source_is_chosen_on_import():
    first = BOARD["templating"]["list"][0]
    assert (first["name"], first["type"], first["query"]) == ("datasource", "datasource", "prometheus")
    assert "id" not in BOARD and BOARD["uid"] and BOARD["schemaVersion"] >= 38


def test_all_are_those_that_are_listed():
    """Servers of vLLM have series of the same names, but no nsa_build_info."""
    asked = [variable for variable in BOARD["templating"]["list"] if variable["type"] == "query"]
    assert len(asked) == 3
    for variable in asked:
        assert variable["includeAll"] and "allValue" not in variable
        assert variable["definition"].startswith("label_values(nsa_build_info")


def test_every_series_that_is_queried_exists(monitored):
    live = monitoring.exposed(monitored.text)
    queries = [target["expr"] for panel in PANELS for target in panel["targets"]]
    queries += [variable["definition"] for variable in BOARD["templating"]["list"] if variable["type"] == "query"]
    problems = [problem for expression in queries for problem in monitoring.problems_of(expression, live)]
    assert not problems, problems


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_query_of_a_panel_has_data(monitored, panel):
    for target in panel["targets"]:
        found = monitored.query_panel({**panel, "targets": [target]})
        assert any(draw_panels.points_of(series) for _, series in found), target["expr"]
