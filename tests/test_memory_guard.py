"""The memory guard as a client meets it: levels, refusals, recovery, and what will never fit."""

import re

import pytest
from harness import (SMOLLM2, SMOLLM2_ID, answer, ask, body, error_of, floors, run, streaming,
                     until_text, wait_until, write_script_model)

MIB = 1 << 20
# Floors that put any machine of 10 MB to 500 GB at the level, whatever it has available.
LEVELS = {
    "Safe": floors(0.004, 0.003, 0.002, 0.001),
    "Caution": floors(900_000, 0.003, 0.002, 0.001),
    "Warning": floors(900_000, 800_000, 0.002, 0.001),
}
# For a memory group of 1 GiB: Critical when less than 0.3 GB is left in it.
GROUP_FLOORS = floors(0.4, 0.35, 0.3, 0.05)


@pytest.mark.parametrize("level", ["Safe", "Caution", "Warning"])
def test_requests_are_accepted_at(level, serve_script):
    server = serve_script(env=LEVELS[level])
    response = ask(server, "script: say hi")
    assert response.status_code == 200
    assert response.headers["x-memory-status"] == level
    assert float(response.headers["x-available-memory-gb"]) > 0
    memory = server.http.get("/health").json()["memory"]
    assert memory["status"] == level
    assert memory["accepting_requests"] is True


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("level", ["Critical", "Emergency"])
def test_requests_are_refused_at(level, streamed, serve_short_of_memory):
    server = serve_short_of_memory(level)
    response = ask(server, "script: say hi", stream=streamed)
    assert response.status_code == 503
    assert response.headers["x-memory-status"] == level
    available = response.headers["x-available-memory-gb"]
    assert re.fullmatch(r"\d+\.\d\d", available)
    assert 1 <= int(response.headers["retry-after"]) <= 60
    error = error_of(response)
    assert error["type"] == "overloaded_error"
    assert error["message"] == (
        f"Server is under {level.lower()} memory pressure: {available}GB available")
    memory = server.http.get("/health").json()["memory"]
    assert memory["status"] == level
    assert memory["accepting_requests"] is False


def test_a_refusing_server_still_answers_what_needs_no_memory(serve_short_of_memory):
    server = serve_short_of_memory("Critical")
    for path in ("/", "/health", "/v1/models", "/v1/pensieve/ps"):
        assert server.http.get(path).status_code == 200


def test_a_warning_is_logged_and_the_request_goes_on(serve_script):
    server = serve_script(env=LEVELS["Warning"])
    assert answer(server, "script: say hi") == "hi"
    server.wait_for_log(r" W pensieve: memory is short: \d+\.\d\dGB available")


def test_health_has_exactly_the_keys_and_types_that_were_promised(scripted):
    health = scripted.http.get("/health").json()
    assert health["status"] == "healthy"
    assert health["service"] == "pensieve-anthropic-proxy"
    assert list(health)[:3] == ["status", "service", "memory"]
    memory = health["memory"]
    assert list(memory)[:3] == ["status", "available_gb", "accepting_requests"]
    assert memory["status"] in ("Safe", "Caution", "Warning", "Critical", "Emergency")
    assert re.fullmatch(r"\d+\.\d\d", memory["available_gb"])
    assert memory["accepting_requests"] is True


def test_the_default_settings_have_the_guard_in_them(serve_script):
    server = serve_script()
    memory = server.http.get("/health").json()["memory"]
    available = float(memory["available_gb"])
    expected = next(level for level, floor in (
        ("Safe", 3), ("Caution", 2), ("Warning", 1), ("Critical", 0.5), ("Emergency", 0))
        if available >= floor)
    assert memory["status"] == expected


def test_memory_is_written_to_the_log_before_and_after_each_generation(serve_script):
    server = serve_script()
    answer(server, "script: say hi")
    figures = r"Available: \d+\.\d\dGB / \d+\.\d\dGB \(\d+\.\d% used\)"
    server.wait_for_log(r"\[MEMORY BEFORE\] " + figures)
    server.wait_for_log(r"\[MEMORY AFTER\] " + figures)


def test_memory_is_written_after_a_failed_generation_too(serve_script):
    server = serve_script()
    with streaming(server, "script: delay 20; endless x") as all_events:
        until_text(all_events)
    server.wait_for_log(r"\[MEMORY AFTER\]")


def test_a_full_memory_group_refuses_and_accepts_again_when_the_hog_is_gone(serve, memory_group):
    group = memory_group(1024 * MIB)
    server = serve("--model", SMOLLM2, "--context", "1024", "--parallel", "1", env=GROUP_FLOORS,
                   group=group)
    request = body("Say hello.", model=SMOLLM2_ID, max_tokens=4)
    assert server.http.post("/v1/messages", json=request).status_code == 200
    before = float(server.http.get("/health").json()["memory"]["available_gb"])
    assert before < 1, "the group's limit was not seen"

    hog = group.hog(int((before - 0.2) * (1 << 30)))
    try:
        refused = wait_until(
            lambda: next((r for r in [server.http.post("/v1/messages", json=request)]
                          if r.status_code == 503), None), 10, "a refusal")
        assert refused.headers["x-memory-status"] == "Critical"
        assert float(refused.headers["x-available-memory-gb"]) < 0.3
        assert error_of(refused)["type"] == "overloaded_error"
    finally:
        group.release(hog)
    wait_until(lambda: server.http.post("/v1/messages", json=request).status_code == 200, 10,
               "an answer after the hog was gone")


def test_a_running_answer_goes_on_at_critical(serve_script, memory_group):
    group = memory_group(256 * MIB)
    server = serve_script(env=floors(0.2, 0.19, 0.18, 0.01), group=group)
    with streaming(server, "script: delay 20; repeat 100 x") as all_events:
        until_text(all_events)
        group.hog(128 * MIB)
        wait_until(lambda: ask(server, "script: say hi").status_code == 503, 5, "a refusal")
        assert list(all_events)[-1][0] == "message_stop"


def test_floors_that_the_machine_can_never_reach_end_the_start_with_the_numbers(tmp_path):
    model = write_script_model(tmp_path)
    ended = run(tmp_path, "serve", "--model", model, "--port", "0",
                env=floors(900_000, 800_000, 700_000, 600_000))
    assert ended.returncode == 7
    assert "700000.00GB" in ended.stderr


def test_a_model_that_can_never_fit_ends_the_start_with_the_numbers(tmp_path):
    model = write_script_model(tmp_path, plan_mib=100_000_000)
    ended = run(tmp_path, "serve", "--model", model, "--port", "0")
    assert ended.returncode == 7
    assert re.search(r"97656\.2\dGB", ended.stderr)


def test_a_model_that_does_not_fit_now_is_refused_and_loaded_when_it_does(
        serve_script, memory_group):
    group = memory_group(1024 * MIB)
    hog = group.hog(700 * MIB)
    try:
        server = serve_script(model={"plan_mib": 500}, env=floors(0.1, 0.08, 0.05, 0.02),
                              group=group)
        response = ask(server, "script: say hi")
        assert response.status_code == 503
        error = error_of(response)
        assert error["type"] == "overloaded_error"
        assert "needs 0.49GB" in error["message"]
        assert 1 <= int(response.headers["retry-after"]) <= 60
    finally:
        group.release(hog)
    wait_until(lambda: ask(server, "script: say hi").status_code == 200, 20, "an answer")


def test_a_refusal_is_logged_with_the_reading_that_caused_it(serve_short_of_memory):
    server = serve_short_of_memory("Critical")
    response = ask(server, "script: say hi")
    available = response.headers["x-available-memory-gb"]
    server.wait_for_log(rf" W pensieve: refused: [^\n]*{available}GB available[^\n]*"
                        r"limited by cgroup ")


def test_the_tiers_of_claude_code_share_one_resident_model(serve_script):
    server = serve_script(model={"weights_mib": 40})
    worker = server.worker()
    for name in ["claude-haiku-4-5", "claude-sonnet-4-5", "claude-opus-4-5"] * 5:
        assert ask(server, "script: say hi", model=name).status_code == 200
    assert server.worker() == worker
    assert server.log().count(" loaded ") == 1


def test_a_dead_workers_memory_is_back_before_the_next_takes_it(serve_script, memory_group):
    group = memory_group(384 * MIB)
    # Two of them at once would be more than the group has, and the kernel would kill.
    server = serve_script(model={"weights_mib": 200}, env=floors(0.1, 0.08, 0.05, 0.02),
                          group=group)
    for _ in range(5):
        with streaming(server, "script: say one; segv") as all_events:
            assert list(all_events)[-1][0] == "error"
        assert answer(server, "script: say hi") == "hi"
    assert group.kills() == 0
    assert group.peak() < 300 * MIB
