"""A hundred requests of every kind leave the memory of gateway and worker where it was."""

import random

import pytest
from harness import CALM, SMOLLM2, SMOLLM2_ID, resident_bytes, streaming, until_text, wait_until

SEED = 20260729
WARM_UP, REQUESTS = 20, 100
KIB = 1024
# By choice: well above what an allocator's fragments do (see the printed figures), and well below
# one leaked prompt or answer per request.
GATEWAY_GROWTH_MAX = 512 * KIB
WORKER_GROWTH_MAX = 8192 * KIB
WORDS = "red green blue seven river stone cloud paper window quiet run sing why how tell".split()


def one_request(server, random_source):
    """A request of a random kind; every kind ends before this returns."""
    words = " ".join(random_source.choices(WORDS, k=random_source.randint(3, 60)))
    request = {"model": SMOLLM2_ID, "max_tokens": random_source.randint(1, 12),
               "messages": [{"role": "user", "content": words}]}
    kind = random_source.choice(["whole", "whole", "stream", "stream", "hang up", "count", "bad"])
    if kind == "whole":
        assert server.http.post("/v1/messages", json=request).status_code == 200
    elif kind == "stream":
        with streaming(server, words, model=SMOLLM2_ID,
                       max_tokens=request["max_tokens"]) as all_events:
            assert list(all_events)[-1][0] == "message_stop"
    elif kind == "hang up":
        with streaming(server, words, model=SMOLLM2_ID, max_tokens=200) as all_events:
            until_text(all_events)
        wait_until(lambda: server.running_requests() == 0, 10, "a freed place")
    elif kind == "count":
        del request["max_tokens"]
        counted = server.http.post("/v1/messages/count_tokens", json=request)
        assert counted.status_code == 200
    else:
        bad = {**request, "temperature": 9}
        assert server.http.post("/v1/messages", json=bad).status_code == 400


def resident(server, worker):
    """Of gateway and worker, without what is kept for later turns: that is promised and bounded."""
    assert server.http.post("/v1/pensieve/clear-cache").status_code == 200
    return resident_bytes(server.pid), resident_bytes(worker)


@pytest.mark.timeout(400)
def test_a_hundred_requests_grow_neither_gateway_nor_worker(serve, measured):
    server = serve("--model", SMOLLM2, "--context", "2048", *CALM)
    random_source = random.Random(SEED)
    for _ in range(WARM_UP):
        one_request(server, random_source)
    worker = server.worker()
    before = resident(server, worker)
    for _ in range(REQUESTS):
        one_request(server, random_source)
    assert server.worker() == worker, "the worker was replaced; its figures mean nothing"
    after = resident(server, worker)
    growth = after[0] - before[0], after[1] - before[1]
    measured(f"{REQUESTS} requests, seed {SEED}: gateway {before[0] // KIB} KiB {growth[0]:+} bytes"
             f" (at most {GATEWAY_GROWTH_MAX}), worker {before[1] // KIB} KiB {growth[1]:+} bytes"
             f" (at most {WORKER_GROWTH_MAX})")
    assert growth[0] <= GATEWAY_GROWTH_MAX
    assert growth[1] <= WORKER_GROWTH_MAX
