"""libFuzzer finds nothing in the parsers of requests and of frames, in bounded time."""

import re
import subprocess

import harness
import pytest

SECONDS = 60


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("target, least_runs", [("request", 20_000), ("frame", 20_000)])
def test_nothing_is_found(target, least_runs, measured, tmp_path):
    ended = subprocess.run(
        [str(harness.ROOT / "scripts" / "fuzz.sh"), target, str(SECONDS)], cwd=harness.ROOT,
        env=harness.clean_environment(tmp_path, PENSIEVE_FUZZ_IS_BUILT="1"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=SECONDS + 100, check=False)
    assert ended.returncode == 0, ended.stdout[-6000:]
    runs = int(re.search(r"stat::number_of_executed_units:\s*(\d+)", ended.stdout).group(1))
    measured(f"fuzzing {target}: {runs} inputs in {SECONDS} s")
    # Fewer mean that the fuzzer did not get to work.
    assert runs > least_runs
