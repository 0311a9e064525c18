"""The files in deploy/ are what systemd and launchd take, and say what the program relies on."""

import configparser
import plistlib
import re
import subprocess

import pytest
from harness import PENSIEVE, ROOT

SERVICE = ROOT / "deploy" / "pensieve.service"
PLIST = ROOT / "deploy" / "com.pensieve.plist"


@pytest.fixture
def service():
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str
    parser.read(SERVICE)
    return parser["Service"]


def verify(unit):
    return subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)],
                          capture_output=True, text=True, timeout=60, check=False)


def test_systemd_takes_the_unit_without_a_word(tmp_path):
    unit = tmp_path / SERVICE.name
    unit.write_text(SERVICE.read_text().replace("/usr/local/bin/pensieve ", f"{PENSIEVE} "))
    verified = verify(unit)
    assert verified.returncode == 0, verified.stderr
    assert str(unit) not in verified.stderr and unit.name not in verified.stderr, verified.stderr


def test_the_verification_finds_what_is_wrong(tmp_path):
    unit = tmp_path / SERVICE.name
    unit.write_text(SERVICE.read_text().replace("OOMScoreAdjust=-500", "OOMScoreAdjust=-5000")
                    .replace("/usr/local/bin/pensieve ", f"{PENSIEVE} "))
    assert re.search(r"OOM score adjust value out of range.*-5000", verify(unit).stderr)


@pytest.mark.parametrize("key,value", [
    ("Delegate", "yes"), ("OOMPolicy", "continue"), ("OOMScoreAdjust", "-500"),
    ("LimitMEMLOCK", "infinity"), ("MemorySwapMax", "0"), ("LimitCORE", "1"),
    # These two would take the cgroup tree or /proc from the worker.
    ("ProtectControlGroups", "no"), ("KillMode", "mixed")])
def test_the_unit_sets_what_the_program_relies_on(service, key, value):
    assert service[key] == value


def test_the_unit_takes_nothing_that_the_worker_reads(service):
    assert "ProcSubset" not in service and "ProtectProc" not in service
    assert "SystemCallFilter" not in service, "landlock and seccomp have to stay possible"
    assert int(service["LimitNOFILE"]) >= 1024 + 64


def test_the_unit_does_not_restart_where_that_cannot_help(service):
    said = {int(code) for code in service["RestartPreventExitStatus"].split()}
    source = (ROOT / "src" / "cli" / "exit_code.h").read_text()
    codes = {name: int(code) for name, code in re.findall(r"(k\w+) = (\d+),", source)}
    assert said == {codes[name] for name in
                    ("kUsage", "kModelUnavailable", "kDoesNotFit", "kGuardBroken")}


def test_the_property_list_is_one_and_starts_the_server():
    agent = plistlib.loads(PLIST.read_bytes())
    assert agent["Label"] == PLIST.stem
    assert agent["ProgramArguments"] == ["/usr/local/bin/pensieve", "serve"]
    assert agent["KeepAlive"] == {"Crashed": True}
    assert agent["SoftResourceLimits"]["NumberOfFiles"] >= 1024 + 64
    assert agent["ExitTimeOut"] >= 15
