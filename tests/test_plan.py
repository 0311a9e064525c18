"""`pensieve plan`, and that what it says is above what is measured."""

import json
import pathlib
import re

import pytest
from harness import body, run, wait_until, write_script_model

GIB = 2**30
SMOLLM2 = "SmolLM2-135M-Instruct"


def plan(home, *arguments, **env):
    ended = run(home, "plan", *arguments, "--json", env={"PENSIEVE_PORT": "1", **env})
    return ended.returncode, json.loads(ended.stdout) if ended.stdout else ended.stderr


def meminfo(key):
    text = pathlib.Path("/proc/meminfo").read_text()
    return int(re.search(rf"^{key}:\s+(\d+) kB", text, re.M).group(1)) / 2**20


def anonymous_bytes(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return sum(int(re.search(rf"{key}:\s+(\d+) kB", text).group(1)) << 10
               for key in ("RssAnon", "RssShmem"))


def test_a_plan_loads_nothing_and_says_all_parts(tmp_path):
    code, report = plan(tmp_path, SMOLLM2, "--context", "4096")
    assert code == 0, report
    estimate = report["estimate"]
    assert report["context_tokens"] == 4096 and report["context_train_tokens"] == 8192
    assert estimate["weights_mapped_bytes"] > 80 << 20
    # 30 layers, 3 heads of 64 dimensions for keys and as many for values, 2 bytes each.
    assert estimate["kv_bytes"] == 4096 * 30 * 3 * 64 * 2 * 2
    parts = ("weights_mapped_bytes", "weights_copied_bytes", "kv_bytes", "compute_bytes",
             "process_bytes", "image_bytes", "grammar_bytes")
    assert estimate["total_bytes"] == sum(estimate[part] for part in parts)
    assert report["fits"] == "now" and report["largest_context_ever"] == 8192
    assert report["memory"]["source"] == "this machine" and "last_run" not in report


def test_the_table_says_the_same_to_people(tmp_path):
    ended = run(tmp_path, "plan", SMOLLM2, env={"PENSIEVE_PORT": "1"})
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^KV cache +180\.0 MB$", ended.stdout, re.M), ended.stdout
    assert "It fits now." in ended.stdout and "Never measured" in ended.stdout


@pytest.mark.timeout(400)
@pytest.mark.parametrize("prompt_words,answer_tokens", [(10, 8), (300, 20)])
def test_the_estimate_is_above_what_a_worker_takes(serve, tmp_path, measured, prompt_words,
                                                   answer_tokens):
    server = serve("--model", SMOLLM2, "--context", "8192")
    worker = server.worker()
    peak = anonymous_bytes(worker)
    for turn in range(3):
        text = f"{turn} " + "the quick brown fox " * (prompt_words // 4)
        answer = server.http.post("/v1/messages", json=body(text, max_tokens=answer_tokens,
                                                            model=SMOLLM2), timeout=300)
        assert answer.status_code == 200, answer.text
        peak = max(peak, anonymous_bytes(worker))
    model = server.http.get("/v1/pensieve/ps").json()["models"][0]
    metrics = server.http.get("/metrics").text
    assert re.search(r'pensieve_worker_drift\{model="[^"]+",drift="within"\} 1', metrics), metrics
    server.stop()
    code, report = plan(server.home, SMOLLM2, "--context", "8192")
    estimate = report["estimate"]
    anonymous = estimate["total_bytes"] - estimate["weights_mapped_bytes"]
    measured(f"{prompt_words} words: worker {peak / 2**20:.0f} MB anonymous at most, "
             f"{anonymous / 2**20:.0f} MB estimated, {model['memory_reserved_bytes'] / 2**20:.0f} "
             f"MB reserved in all")
    assert code == 0 and peak <= anonymous
    last = report["last_run"]
    assert last["runs"] == 1 and 0 < last["peak_bytes"] <= last["planned_bytes"]


def test_exit_codes_tell_now_from_later_and_never(tmp_path):
    small = write_script_model(tmp_path, "small", weights_mib=8)
    huge = write_script_model(tmp_path, "huge", plan_mib=1 << 24)
    assert plan(tmp_path, small)[0] == 0
    code, report = plan(tmp_path, huge)
    assert code == 7 and report["fits"] == "never"
    middle = (meminfo("MemAvailable") + meminfo("MemTotal")) / 2
    code, report = plan(tmp_path, small, PENSIEVE_MEMORY_CAUTION_GB=str(middle + 2),
                        PENSIEVE_MEMORY_WARNING_GB=str(middle + 1),
                        PENSIEVE_MEMORY_CRITICAL_GB=str(middle))
    assert code == 6 and report["fits"] == "not_now", report
    assert report["largest_context_now"] == 0
    assert plan(tmp_path, tmp_path / "none.gguf")[0] == 4


def test_a_running_server_is_asked_what_it_promised(serve, tmp_path):
    loaded = write_script_model(tmp_path, "loaded", plan_mib=300)
    server = serve("--model", loaded)
    server.worker()
    wait_until(lambda: server.http.get("/v1/pensieve/ps").json()["models"][0]["state"] == "ready",
               20, "a loaded model")
    code, report = plan(tmp_path, loaded, PENSIEVE_PORT=str(server.port))
    assert code == 0
    assert report["memory"]["source"].endswith(str(server.port))
    # With what is promised for parked prefixes.
    reserved = server.http.get("/v1/pensieve/ps").json()["models"][0]["memory_reserved_bytes"]
    assert report["would_unload"] == {"model": "loaded", "bytes": reserved}
    assert reserved >= 300 << 20
    assert report["memory"]["floor_bytes"] == GIB


def test_what_a_worker_took_above_its_estimate_is_in_the_next_one(serve, tmp_path):
    model = write_script_model(tmp_path, "m", plan_mib=64)
    server = serve("--model", model)
    answer = server.http.post("/v1/messages", json=body("script: leak 200; say done", model="m"))
    assert answer.status_code == 200, answer.text
    server.wait_for_log(r"more than the 0\.06GB reserved for it", 15)
    ps = server.http.get("/v1/pensieve/ps").json()
    assert ps["memory"]["promised_bytes"] > 200 << 20
    server.stop()
    code, report = plan(server.home, model)
    assert code == 0
    # At most twice the plan: what takes more, leaks.
    assert report["estimate"]["raised_bytes"] == 64 << 20, report
    assert report["last_run"]["peak_bytes"] > 200 << 20
