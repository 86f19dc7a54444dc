"""deploy/systemd/nsa-serve.service: systemd accepts it, it is confined, and it leaves a drain its time."""

import pathlib
import re
import subprocess

from monitoring import ROOT, build_dir

UNIT = ROOT / "deploy" / "systemd" / "nsa-serve.service"
MAX_EXPOSURE = 15  # of 100: 14 are the network, which a server needs, and what @system-service allows


def installed(folder: pathlib.Path) -> pathlib.Path:
    """The unit with the server where this build has it."""
    unit = folder / UNIT.name
    server = build_dir().resolve() / "bin" / "nsa-server"
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/nsa-server", str(server)))
    return unit


def settings() -> dict[str, list[str]]:
    found = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def test_systemd_accepts_it(tmp_path):
    result = subprocess.run(["systemd-analyze", "verify", installed(tmp_path)], capture_output=True, text=True)
    said = [line for line in result.stderr.splitlines() if UNIT.name in line]
    assert result.returncode == 0 and not said, result.stderr


def test_it_is_confined(tmp_path):
    result = subprocess.run(["systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE}",
                             installed(tmp_path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_drain_has_its_time_and_settings_name_flags():
    help_text = subprocess.run([build_dir() / "bin" / "nsa-server", "--help"], capture_output=True, text=True).stdout
    drain = int(re.search(r"--drain-timeout=.*?default (\d+)", help_text, re.DOTALL).group(1))
    assert int(settings()["TimeoutStopSec"][0]) >= drain + 10
    flags = {"NSA_" + flag.upper().replace("-", "_") for flag in re.findall(r"^  --([a-z-]+)", help_text, re.MULTILINE)}
    assert {pair.split("=")[0] for pair in settings()["Environment"][0].split()} <= flags


def test_the_drop_in_of_a_gpu_lifts_what_closes_its_devices():
    """systemd.exec(5): each of these leaves no device but its own."""
    drop_in = re.search(r"```ini\n(.*?)```", (ROOT / "docs" / "deploy.md").read_text(), re.DOTALL).group(1)
    closing = [name for name in ("PrivateDevices", "ProtectClock") if settings()[name] == ["yes"]]
    assert closing and all(f"\n{name}=no\n" in drop_in for name in closing)
