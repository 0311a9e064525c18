"""What the benchmarks judge by: a cost that nobody can see."""

import sys

import pytest
from harness import ROOT

sys.path.insert(0, str(ROOT / "bench"))

import tools


@pytest.mark.parametrize("ours, theirs, said, met", [
    ([0.10, 0.11, 0.12], [1.0, 1.0, 1.0], "0.110, at most 0.120; goal <= 0.2: ok", True),
    ([0.10, 0.11, 0.21], [1.0, 1.0, 1.0], "0.110, at most 0.210; goal <= 0.2: MISS", False),
    ([-0.1, 0.05, 0.1], [1.0, 1.0, 1.0],
     "below the noise of 0.150 ms, at most 0.100; goal <= 0.2: ok", True),
    ([-0.3, -0.2, -0.25], [1.0, 1.0, 1.0],
     "below the noise of 0.050 ms, at most 0.300; goal <= 0.2: MISS", False),
    ([0.1], [-0.1], "the other's cost is below the noise; goal <= 0.2: MISS", False)])
def test_a_cost_that_is_lost_in_the_noise_is_no_ratio(ours, theirs, said, met):
    assert tools.judge(ours, theirs) == (said, met)
