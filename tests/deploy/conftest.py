import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))


@pytest.fixture(scope="package")
def monitored(tmp_path_factory):
    """A loaded server and a Prometheus that scrapes it; neither runs beside the tests of other folders."""
    import monitoring
    running = monitoring.Monitored(tmp_path_factory.mktemp("prometheus"))
    yield running
    running.close()
