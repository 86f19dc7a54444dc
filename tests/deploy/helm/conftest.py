import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import chart  # noqa: E402


@pytest.fixture(scope="session")
def helm(tmp_path_factory):
    return chart.Helm(tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session", params=chart.PRESETS)
def preset(request, helm):
    """(name, objects) of the chart with its own values and with each example's."""
    return request.param, helm.objects(preset=request.param)
