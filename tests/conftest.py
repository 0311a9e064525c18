"""Fixtures: servers to share, servers of one's own, and memory groups of the kernel."""

import os
import pathlib

import pytest

import harness
import memory_groups


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows what its servers said."""
    report = yield
    if report.failed:
        for server in getattr(item, "servers", []):
            report.sections.append((f"server {server.home.name}", server.output()[-8000:]))
    return report


_MEASURED = pytest.StashKey[list]()


@pytest.fixture
def measured(request):
    """measured(text) prints a figure at the end of the run, also when all is well."""
    return request.config.stash.setdefault(_MEASURED, []).append


def pytest_terminal_summary(terminalreporter, config):
    for line in config.stash.get(_MEASURED, []):
        terminalreporter.write_line(f"measured: {line}")


def _note(request, server):
    if not hasattr(request.node, "servers"):
        request.node.servers = []
    request.node.servers.append(server)


@pytest.fixture
def memory_group():
    """Makes memory groups of the kernel: memory_group(limit_bytes). They are removed at the end."""
    groups = []

    def make(limit_bytes):
        groups.append(memory_groups.MemoryGroup(f"pensieve-test-{len(groups)}", limit_bytes))
        return groups[-1]

    yield make
    for group in reversed(groups):
        group.remove()


@pytest.fixture
def serve(request, tmp_path, memory_group):  # In this order: groups go after their servers.
    """Starts servers of the test's own: serve(*arguments, env=..., group=...)."""
    servers = []

    def start(*arguments, env=None, group=None, expect=0):
        home = tmp_path / f"server-{len(servers)}"
        server = harness.Server(home, arguments, env, group)
        server.expect = expect
        servers.append(server)
        _note(request, server)
        return server

    yield start
    for server in servers:
        server.stop(server.expect)


@pytest.fixture
def serve_script(serve, tmp_path):
    """Starts a server on the scripted engine: keyword `model` is a dict of the model's keys."""

    def start(*arguments, model=None, **more):
        path = harness.write_script_model(tmp_path, **(model or {}))
        return serve("--model", path, *arguments, **more)

    return start


@pytest.fixture
def serve_short_of_memory(serve_script, memory_group):
    """Starts servers at a level, truly short of memory: in a group of 256 MiB, half of it held.

    serve_short_of_memory(level) returns the server; the hog ends with the group.
    """
    floors = {"Critical": (0.2, 0.19, 0.18, 0.01), "Emergency": (0.2, 0.19, 0.18, 0.17)}

    def start(level, **more):
        group = memory_group(256 << 20)
        group.hog(128 << 20)
        return serve_script(env=harness.floors(*floors[level]), group=group, **more)

    return start


@pytest.fixture(scope="module")
def _shared_script(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripted")
    model = harness.write_script_model(folder, context_tokens=4096)
    server = harness.Server(folder / "home", ["--model", model])
    yield server
    server.stop()


@pytest.fixture
def scripted(_shared_script, request):
    """A server on the scripted engine that the tests of a file share."""
    _note(request, _shared_script)
    return _shared_script


@pytest.fixture(scope="session")
def _shared_smollm2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smollm2")
    arguments = ["--model", harness.SMOLLM2, "--context", "8192", *harness.CALM]
    server = harness.Server(folder, arguments)
    yield server
    server.stop()


@pytest.fixture
def smollm2(_shared_smollm2, request):
    """A server on SmolLM2 that all tests share."""
    _note(request, _shared_smollm2)
    return _shared_smollm2


@pytest.fixture(scope="session")
def clients():
    """The folder with the official JavaScript clients; ./dev test e2e sets it up and names it."""
    folder = os.environ.get("PENSIEVE_TEST_CLIENTS")
    assert folder, "run these tests as ./dev test e2e"
    return pathlib.Path(folder)


@pytest.fixture(scope="session", autouse=True)
def only_loopback():
    """No test may reach another machine: ./dev test e2e gives them a network of their own."""
    with open("/proc/net/dev", encoding="utf-8") as lines:
        names = {line.split(":")[0].strip() for line in lines if ":" in line}
    assert names == {"lo"}, f"network interfaces besides loopback: {names}; run ./dev test e2e"
