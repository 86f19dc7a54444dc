"""monitoring.py's server and Prometheus end with the tests of deploy/: those that follow measure time."""

import subprocess
import sys

from monitoring import ROOT


def test_they_end_with_the_tests_of_this_folder():
    tests = ["tests/deploy/grafana", "tests/deploy/prometheus/operations_test.py", "tests/lint/named_tests_test.py"]
    plan = subprocess.run([sys.executable, "-m", "pytest", "--setup-plan", *tests], cwd=ROOT, capture_output=True,
                          text=True, check=True).stdout
    used, rest = plan.split("TEARDOWN P monitored")
    assert "operations_test.py" in used and "named_tests_test.py" not in used and "named_tests_test.py::" in rest
