"""libFuzzer finds nothing in the parsers of requests and of frames, in bounded time."""

import subprocess

import harness
import pytest

SECONDS = 60


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("target", ["request", "frame"])
def test_nothing_is_found(target, measured, tmp_path):
    ended = subprocess.run(
        [str(harness.ROOT / "scripts" / "fuzz.sh"), target, str(SECONDS)], cwd=harness.ROOT,
        env=harness.clean_environment(tmp_path, PENSIEVE_FUZZ_IS_BUILT="1"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=SECONDS + 100, check=False)
    last = ended.stdout.splitlines()[-1]
    assert ended.returncode == 0 and last.startswith("ok "), ended.stdout[-6000:]
    measured(last.removeprefix("ok").strip())
