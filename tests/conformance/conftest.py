"""Fixtures of the conformance suite: the SDKs, the versions of Claude Code, the fault proxy."""

import os
import pathlib
import sys

import claude_code
import fault_proxy
import harness
import pytest
import sdk_clients

SDKS = ("python-new", "python-old", "typescript-new", "typescript-old")


@pytest.fixture(scope="session")
def old_clients():
    """The folder with the older JavaScript clients; scripts/test.sh sets it up and names it."""
    folder = os.environ.get("PENSIEVE_TEST_OLD_CLIENTS")
    assert folder, "run these tests as ./dev conformance or ./dev test e2e"
    return pathlib.Path(folder)


@pytest.fixture(scope="session")
def old_venv():
    """The Python environment with the older SDK."""
    folder = os.environ.get("PENSIEVE_TEST_OLD_VENV")
    assert folder, "run these tests as ./dev conformance or ./dev test e2e"
    return pathlib.Path(folder)


@pytest.fixture(scope="session")
def _sdks(clients, old_clients, old_venv, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdks")
    started = {
        "python-new": sdk_clients.python_sdk(sys.prefix, True, folder / "python-new"),
        "python-old": sdk_clients.python_sdk(old_venv, False, folder / "python-old"),
        "typescript-new": sdk_clients.typescript_sdk(clients, True, folder / "typescript-new"),
        "typescript-old": sdk_clients.typescript_sdk(old_clients, False, folder / "typescript-old")}
    yield started
    for sdk in started.values():
        sdk.close()


@pytest.fixture(params=SDKS)
def sdk(_sdks, request):
    """Each SDK in turn: two languages, the newest version and an older one."""
    return _sdks[request.param]


@pytest.fixture(scope="session")
def _steady(tmp_path_factory):
    """One server on the scripted engine for all of the suite that changes nothing of it."""
    folder = tmp_path_factory.mktemp("steady")
    model = harness.write_script_model(folder, context_tokens=65536)
    server = harness.Server(folder / "home", ["--model", model, "--context", "65536"])
    yield server
    server.stop()


@pytest.fixture
def steady(_steady, request):
    request.node.servers = [_steady]
    return _steady


@pytest.fixture(scope="session")
def _proxy(_steady):
    proxy = fault_proxy.FaultProxy(_steady.port)
    yield proxy
    proxy.close()


@pytest.fixture
def proxy(_proxy, steady):
    """The fault proxy in front of the steady server, with nothing planned."""
    _proxy.plan()
    return _proxy


@pytest.fixture
def claudes(clients, old_clients, tmp_path):
    """The versions of Claude Code, each with a home of its own."""
    made = []
    for name, folder in (("claude-new", clients), ("claude-old", old_clients)):
        home = tmp_path / name
        for below in ("cache", "config", "state", "run"):
            (home / below).mkdir(parents=True)
        made.append(claude_code.Claude(name, folder, home))
    return made


@pytest.fixture(params=["claude-new", "claude-old"])
def claude(claudes, request):
    """Each version of Claude Code in turn."""
    return next(version for version in claudes if version.name == request.param)
