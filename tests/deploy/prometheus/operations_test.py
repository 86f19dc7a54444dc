"""docs/operations.md says what every series of a live /metrics tells."""

import re

from monitoring import ROOT


def test_every_series_is_described(monitored):
    families = set(re.findall(r"^# TYPE (\S+) ", monitored.text, re.MULTILINE))
    section = (ROOT / "docs" / "operations.md").read_text().split("\n## Metrics\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\|([^|]*)\|", section, re.MULTILINE)
    described = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    assert len(families) > 25 and set(described) == families
    assert len(described) == len(set(described)), "twice"
