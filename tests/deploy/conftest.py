import pytest


@pytest.fixture(scope="session")
def monitored(tmp_path_factory):
    """A loaded server and a Prometheus that scrapes it."""
    import monitoring
    running = monitoring.Monitored(tmp_path_factory.mktemp("prometheus"))
    yield running
    running.close()
