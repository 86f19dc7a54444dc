"""deploy/prometheus: every alert fires and stays silent in a promtool case, has a runbook, and runs in Prometheus."""

import re
import subprocess

import monitoring
import pytest
import yaml
from monitoring import ROOT, RULES

CASES = sorted((ROOT / "tests" / "deploy" / "prometheus").glob("*_cases.yml"))
RUNBOOKS = ROOT / "docs" / "operations.md"


def rules_of(name: str) -> list[dict]:
    return [rule for group in yaml.safe_load((RULES / name).read_text())["groups"] for rule in group["rules"]]


ALERTS = rules_of("alerts.yml")


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.name)
def test_promtool_agrees_with_every_case(cases):
    result = subprocess.run(["promtool", "test", "rules", cases], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_promtool_accepts_the_configuration_and_its_rules():
    result = subprocess.run(["promtool", "check", "config", RULES / "prometheus.yml"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "2 rule files found" in result.stdout


def test_every_rule_leaves_out_servers_of_vllm():
    """Their series have the same names; what is recorded of ours alone needs no matcher."""
    for rule in ALERTS + rules_of("recording.yml"):
        for name, matchers in monitoring.SELECTOR.findall(rule["expr"]):
            assert name.startswith("model:") or 'job=~".*nsa-serve.*"' in matchers, f'{name} in {rule["expr"]}'


def test_every_alert_has_a_case_that_fires_and_one_that_is_silent():
    fires, silent = set(), set()
    for case in (case for path in CASES for case in yaml.safe_load(path.read_text())["tests"]):
        for check in case["alert_rule_test"]:
            (fires if check.get("exp_alerts") else silent).add(check["alertname"])
    names = {alert["alert"] for alert in ALERTS}
    assert fires == names and silent == names


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_says_how_urgent_it_is_and_has_a_runbook(alert):
    assert alert["labels"] == {"severity": alert["labels"]["severity"]}
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert ROOT / page == RUNBOOKS
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", RUNBOOKS.read_text(), re.MULTILINE | re.DOTALL))
    runbook = {title.lower(): text for title, text in sections.items()}.get(anchor)
    assert runbook, f"{RUNBOOKS.name} has no section {anchor}"
    assert alert["alert"].lower().startswith(anchor) and len(runbook.split()) > 30, f"{anchor} says too little"


@pytest.mark.parametrize("name", ["alerts.yml", "recording.yml"])
def test_every_series_that_a_rule_reads_exists(monitored, name):
    live = monitoring.exposed(monitored.text)
    problems = [problem for rule in rules_of(name) for problem in monitoring.problems_of(rule["expr"], live)]
    assert not problems


def test_a_series_that_does_not_exist_is_found_out(monitored):
    live = monitoring.exposed(monitored.text)
    assert monitoring.problems_of("rate(vllm:num_request_waiting[5m])", live)
    assert monitoring.problems_of('nsa_pages{kind="free"}', live)
    assert monitoring.problems_of('vllm:time_to_first_token_seconds_bucket{le="3"}', live)


def firing_of_the_server(monitored) -> set[str]:
    """When its load had ended, however long ago that is. A slow machine may rightly be late."""
    firing = monitored.query(f'ALERTS{{alertstate="firing", instance!="{monitoring.NOBODY}"}}')
    names = {alert["metric"]["alertname"] for alert in firing}
    return {name for name in names if not re.match("Nsa(FirstToken|InterToken)Burn", name)}


def test_prometheus_evaluates_every_rule_and_a_healthy_server_raises_no_alert(monitored):
    monitored.prometheus.wait_for("model:nsa_kv_read_of_dense:ratio_rate5m > 0")
    rules = monitored.prometheus.rules()
    assert len(rules) == len(ALERTS) + len(rules_of("recording.yml"))
    assert {rule["health"] for rule in rules} == {"ok"}, [rule for rule in rules if rule["health"] != "ok"]
    assert not firing_of_the_server(monitored)


def test_a_target_that_is_down_is_noticed(monitored):
    monitored.prometheus.wait_for(f'ALERTS{{alertname="NsaTargetNeverUp", instance="{monitoring.NOBODY}"}}')
    down = next(rule for rule in monitored.prometheus.rules() if rule["name"] == "NsaTargetNeverUp")
    assert [alert["labels"]["instance"] for alert in down["alerts"]] == [monitoring.NOBODY]


@pytest.mark.parametrize("rule", rules_of("recording.yml"), ids=lambda rule: rule["record"])
def test_every_recorded_series_has_a_value(monitored, rule):
    monitored.prometheus.wait_for(f'{rule["record"]} >= 0')
