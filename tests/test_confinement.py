"""What a worker cannot do, what it is held to, and what the gateway does for itself: as the kernel
has it, in real processes."""

import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess

import harness
import pytest
from harness import answer, ask, error_of, floors, streaming, until_text, wait_until

MIB = 1 << 20
NEVER_SHORT = floors(0.004, 0.003, 0.002, 0.001)
GUARD_BROKEN = 8
NOBODY = 65534


def outcome(server, *attempt):
    return answer(server, "script: try " + " ".join(map(str, attempt)))


def status(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return dict(re.findall(r"^(\w+):\s+(.*)$", text, re.M))


def may_lower_its_score():
    """CAP_SYS_RESOURCE: root has it, but in containers often does not."""
    return int(status("self")["CapEff"], 16) >> 24 & 1 == 1


def own_groups(server):
    """Folders of the memory groups that this server has made for its workers."""
    here = pathlib.Path("/sys/fs/cgroup")
    return [path for path in here.rglob(f"pensieve-worker-{server.pid}-*") if path.is_dir()]


def limit_of(group):
    for name in ("memory.max", "memory.limit_in_bytes"):
        if (group / name).exists():
            return int((group / name).read_text())
    raise AssertionError(f"{group} has no limit")


# --- the walls ------------------------------------------------------------------------------------

@pytest.fixture
def worker_of(serve_script):
    """A server and the process id of its worker, as a pair."""
    server = serve_script()
    assert answer(server, "script: say hi") == "hi"
    return server, server.worker()


def test_a_worker_has_no_network(worker_of):
    server, _ = worker_of
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert outcome(server, "connect", listening.getsockname()[1]) == "EPERM"
    assert outcome(server, "connect", server.port) == "EPERM"


@pytest.fixture
def elsewhere(tmp_path_factory):
    """A folder that is not the model's."""
    return tmp_path_factory.mktemp("elsewhere")


def test_a_worker_reads_its_model_and_no_other_file(worker_of, tmp_path, elsewhere):
    server, _ = worker_of
    secret = elsewhere / "secret"
    secret.write_text("sesame")
    assert outcome(server, "read", secret) == "EACCES"
    assert outcome(server, "read", "/etc/passwd") == "EACCES"
    assert outcome(server, "list", harness.ROOT) == "EACCES"
    assert outcome(server, "read", tmp_path / "test.script") == "done"
    assert outcome(server, "read", "/proc/meminfo") == "done"


def test_a_worker_writes_nowhere_but_where_it_may(worker_of, tmp_path, elsewhere):
    server, worker = worker_of
    assert outcome(server, "write", elsewhere / "new") == "EACCES"
    assert not (elsewhere / "new").exists()
    assert outcome(server, "write", f"/proc/{worker}/oom_score_adj") == "EACCES"
    for group in own_groups(server):  # Not even its own limit.
        for name in ("memory.limit_in_bytes", "memory.max", "cgroup.procs"):
            if (group / name).exists():
                assert outcome(server, "write", group / name) == "EACCES"
    # The scripted engine may make marker files beside its model, for these tests.
    assert outcome(server, "write", tmp_path / "mark") == "done"


def test_a_worker_becomes_no_other_program_and_touches_no_other_process(worker_of):
    server, worker = worker_of
    assert outcome(server, "exec", "/bin/true") == "EPERM"
    assert outcome(server, "signal", server.pid) == "EPERM"
    assert outcome(server, "signal", worker) == "done"
    assert server.worker() == worker


def test_a_worker_has_its_pipes_its_socket_and_nothing_of_the_gateways(worker_of):
    _, worker = worker_of
    names = {}
    for entry in pathlib.Path(f"/proc/{worker}/fd").iterdir():
        with contextlib.suppress(OSError):
            names[int(entry.name)] = os.readlink(entry)
    assert names[0] == "/dev/null"
    sockets = [fd for fd, name in names.items() if name.startswith("socket:")]
    assert sockets == [3], names
    for fd, name in names.items():
        if fd > 3:  # Its own: readings in /proc and /sys, and places that landlock's rules name.
            assert name.startswith(("/", "anon_inode:")), names
            assert "/log" not in name, names


def test_a_worker_is_killed_first_without_privileges_cores_and_secrets(serve_script):
    server = serve_script(env={"PENSIEVE_SERVER_API_KEY": "sesame", "A_TOKEN": "sesame"})
    worker = server.worker()
    proc = pathlib.Path(f"/proc/{worker}")
    assert proc.joinpath("oom_score_adj").read_text().strip() == "1000"
    assert re.search(r"^Max core file size\s+1\s+1\s", proc.joinpath("limits").read_text(), re.M)
    facts = status(worker)
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2"
    assert int(facts["CapEff"], 16) & ~0b110 == 0, "only the two to open files"
    assert b"sesame" not in proc.joinpath("environ").read_bytes()


def test_a_real_model_loads_and_answers_behind_the_walls(smollm2):
    facts = status(smollm2.worker())
    assert facts["Seccomp"] == "2"
    assert facts["NoNewPrivs"] == "1"
    assert answer(smollm2, "Say hello.", max_tokens=8, model=harness.SMOLLM2_ID)


def test_ps_lists_what_holds(worker_of):
    server, _ = worker_of
    protections = server.http.get("/v1/pensieve/ps").json()["models"][0]["protections"]
    held = {one["name"]: one["holds"] for one in protections}
    assert set(held) == {"memory limit", "first to be killed", "no core dumps",
                         "descriptors closed", "no privileges", "dies with the gateway",
                         "reads only its model", "writes only its cache", "no network",
                         "no other programs"}
    assert all(held.values()), protections
    assert all(one["detail"] for one in protections)


def test_the_banner_says_how_many_hold_and_that_the_guard_is_proven(worker_of):
    server, _ = worker_of
    banner = server.output()
    assert re.search(r"guard +proven at start: 7 simulated readings, \d+ ms", banner)
    gateway = 4 if may_lower_its_score() else 3
    assert f"protection   gateway {gateway} of 4, worker 10 of 10" in banner, banner


# --- the memory group -----------------------------------------------------------------------------

def test_a_worker_is_alone_in_a_group_whose_limit_follows_the_reservation(serve_script):
    server = serve_script(model={"weights_mib": 300})
    worker = server.worker()
    (group,) = own_groups(server)
    assert group.joinpath("cgroup.procs").read_text().split() == [str(worker)]
    reserved = server.http.get("/v1/pensieve/ps").json()["models"][0]["memory_reserved_bytes"]
    margin = max(reserved // 8, 128 * MIB)
    wait_until(lambda: abs(limit_of(group) - reserved - margin) < MIB, 5,
               f"the limit {limit_of(group)} being {reserved} + {margin}")


def test_a_leak_ends_at_the_workers_limit_and_not_at_the_machines(serve_script):
    """No group around us has a limit here: only the worker's own can be what ends it."""
    server = serve_script(model={"weights_mib": 8}, env=NEVER_SHORT)
    worker = server.worker()
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        with streaming(server, "script: say one; leak 4000; say never") as all_events:
            until_text(all_events)
            name, data = list(all_events)[-1]
        assert name == "error"
        assert data["error"]["type"] in ("api_error", "overloaded_error")
        server.wait_for_log(rf"worker {worker} ended: killed_by_kernel")
        assert bystander.poll() is None
        assert server.process.poll() is None
        assert answer(server, "script: say hi") == "hi"
    finally:
        bystander.kill()
        bystander.wait()


def test_the_killer_takes_the_worker_and_neither_gateway_nor_neighbour(serve_script, memory_group):
    """Everybody shares a group with a limit; the worker's own is inside it."""
    group = memory_group(512 * MIB)
    server = serve_script(model={"weights_mib": 8}, env=NEVER_SHORT, group=group)
    neighbour = group.hog(16 * MIB)
    response = ask(server, "script: oom; say never")
    assert response.status_code == 503
    assert error_of(response)["type"] == "overloaded_error"
    assert len(re.findall("ended: killed_by_kernel", server.log())) == 2
    assert neighbour.alive()
    assert server.http.get("/health").status_code == 200


def test_groups_are_removed_with_their_workers_and_those_of_dead_gateways_at_the_next_start(
        serve_script):
    killed = serve_script(expect=-signal.SIGKILL)
    killed.worker()
    (left_behind,) = own_groups(killed)
    killed.process.kill()
    killed.process.wait()
    wait_until(lambda: not left_behind.joinpath("cgroup.procs").read_text(), 5, "its worker's end")
    server = serve_script()
    assert not left_behind.exists()
    first = server.worker()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: answer(server, "script: say hi") == "hi", 10, "a new worker")
    (only,) = own_groups(server)
    server.stop()
    assert not only.exists()


# --- the gateway ----------------------------------------------------------------------------------

def test_the_gateway_is_locked_killed_late_and_small(serve_script, measured):
    server = serve_script()
    facts = status(server.pid)
    locked, resident = (int(facts[key].split()[0]) for key in ("VmLck", "VmRSS"))
    assert locked > 0
    assert resident < 15 * 1024, f"{resident} KiB"
    measured(f"idle gateway: {resident / 1024:.1f} MB resident, {locked / 1024:.1f} MB lockable")
    proc = pathlib.Path(f"/proc/{server.pid}")
    score = int(proc.joinpath("oom_score_adj").read_text())
    assert (score == -500) == may_lower_its_score()
    assert ('"killed late" does not hold' in server.log()) == (score != -500)
    limits = re.search(r"^Max open files\s+(\d+)\s+(\d+)", proc.joinpath("limits").read_text(),
                       re.M)
    assert limits.group(1) == limits.group(2)


def test_without_root_it_serves_and_says_what_does_not_hold(tmp_path):
    """As nobody, with the usual 8 MB of lockable memory: everything degrades, nothing fails."""
    home = tmp_path / "nobody"
    home.mkdir()
    for folder in (home, tmp_path):
        os.chmod(folder, 0o777)
    model = harness.write_script_model(tmp_path)
    os.chmod(model, 0o644)
    for parent in tmp_path.parents:  # pytest's own folders are closed to others.
        if parent.stat().st_uid == os.getuid() and str(parent).startswith("/tmp/"):
            os.chmod(parent, parent.stat().st_mode | 0o011)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("pensieve", "pensieve-worker"):
        (programs / name).write_bytes((harness.BUILD / name).read_bytes())
        os.chmod(programs / name, 0o755)
    os.chmod(programs, 0o755)
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
               "prlimit", f"--memlock={8 * MIB}:{8 * MIB}", str(programs / "pensieve"), "serve",
               "--port", "0", "--model", str(model)]
    errors = tmp_path / "stderr"
    with open(errors, "wb") as err:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=err, cwd=home, env=harness.clean_environment(home))
    try:
        banner = ""
        while "Ctrl+C" not in banner:
            line = process.stdout.readline().decode()
            assert line, errors.read_text()
            banner += line
        url = harness.LISTENING.search(banner).group(1)
        assert "protection   gateway 2 of 4, worker 9 of 10" in banner, banner
        response = harness.httpx.post(f"{url}/v1/messages", timeout=30, trust_env=False,
                                      json=harness.body("script: try read /etc/passwd"))
        assert response.json()["content"][0]["text"] == "EACCES"
        log = wait_until(lambda: "memory limit" in errors.read_text() and errors.read_text(), 5,
                         "the warnings")
        for wanted in ("killed late", "locked in memory", "LimitMEMLOCK=infinity", "memory limit",
                       "Delegate=yes"):
            assert wanted in log, log
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(harness.STOP_SECONDS) == 0, errors.read_text()
        process.stdout.close()


def test_a_guard_that_cannot_be_proven_serves_nothing(tmp_path):
    """In a network without loopback no simulated request gets an answer."""
    model = harness.write_script_model(tmp_path)
    ended = subprocess.run(
        ["unshare", "--net", str(harness.PENSIEVE), "serve", "--model", str(model), "--port", "0"],
        cwd=tmp_path, env=harness.clean_environment(tmp_path), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == GUARD_BROKEN
    assert "the memory guard failed its test" in ended.stderr
    assert "refuses at Critical" in ended.stderr
    assert "listening" not in ended.stdout


def test_doctor_lists_each_protection_and_what_to_do(tmp_path):
    ended = harness.run(tmp_path, "doctor")
    for wanted in ("gateway protection", "a memory group per worker", "killed late",
                   "locked in memory", "worker confinement", "reads only its model",
                   "no network", "dies with the gateway"):
        assert wanted in ended.stdout, ended.stdout
    assert "Delegate=yes" not in ended.stdout, "root gets a group"
