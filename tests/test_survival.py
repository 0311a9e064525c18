"""A short part of ./dev bench survival: the attacks that take seconds, against the real kernel."""

import re
import subprocess
import sys

import pytest
from harness import ROOT

SCENARIOS = ("two-models", "kernel-kill-mid-stream", "descriptors-exhausted", "retry-storm")


@pytest.mark.timeout(150)
def test_the_short_attacks_of_the_survival_benchmark_are_survived(measured):
    only = [word for name in SCENARIOS for word in ("--only", name)]
    ended = subprocess.run([sys.executable, ROOT / "bench" / "run.py", "survival", *only],
                           capture_output=True, text=True, timeout=140, check=False)
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
    last = ended.stdout.strip().splitlines()[-1]
    measured(f"survival: {last}")
    assert re.fullmatch(rf"survived={len(SCENARIOS)}/{len(SCENARIOS)} lost=0 wedged=0", last)
