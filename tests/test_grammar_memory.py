"""What schemas take of a worker's memory: never more than is reserved for it, however nasty."""

import concurrent.futures
import json
import pathlib
import re
import threading

import pytest
import schemas
from harness import body, run

SMOLLM2 = "SmolLM2-135M-Instruct"
ANSWERED = {200, 429, 529}


def anonymous_bytes(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return sum(int(re.search(rf"{key}:\s+(\d+) kB", text).group(1)) << 10
               for key in ("RssAnon", "RssShmem"))


class Watch:
    """Looks at a worker again and again: how far it was above its reservation, at most."""

    def __init__(self, server, mapped):
        self.server, self.mapped, self.worker = server, mapped, server.worker()
        self.peak, self.above, self.looks = 0, -1 << 62, 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def reserved(self):
        model, = self.server.http.get("/v1/pensieve/ps").json()["models"]
        return model["memory_reserved_bytes"] - self.mapped

    def _look(self):
        while not self._done.wait(0.01):
            # The reservation first: it may grow between the two, and then only becomes safer.
            reserved, taken = self.reserved(), anonymous_bytes(self.worker)
            self.peak, self.above = max(self.peak, taken), max(self.above, taken - reserved)
            self.looks += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()


def texts(count, length):
    return schemas.obj(**{f"text_{number}": schemas.text(length + number)
                          for number in range(count)})


def pattern(expression):
    return schemas.obj(value={"type": "string", "pattern": expression})


def all_of(many):
    return schemas.obj(**{f"member_{number}": schema for number, schema in enumerate(many)})


# Schemas of answers, which stand in no prompt. Most take more than there is for them, while they
# are compiled or while an answer follows them.
NASTY = {
    "all of the conformance run": all_of(schema for name, schema in schemas.SCHEMAS
                                         if "$defs" not in schema and "definitions" not in schema),
    "many texts with lengths": all_of(texts(4, 50 + 10 * number) for number in range(25)),
    "long texts": texts(30, 1000),
    "many properties": texts(1000, 20),
    "many choices": schemas.obj(value={
        "enum": [f"choice number {number * 7919 % 100003}" for number in range(5000)]}),
    "ambiguous patterns": schemas.obj(value={"anyOf": [
        {"type": "string", "pattern": f"^([a-z ]*[{chr(97 + number % 26)}-z]){{1,{50 + number}}}$"}
        for number in range(60)]}),
    "letters of many parts": pattern("^((a|b|ab|[a-z ]{1,60})+,?)+$"),
    "a long text": texts(1, 4000),
}


def asked(server, schema, seed):
    return server.http.post("/v1/messages", timeout=300, json=body(
        "Write an object with long values.", model=SMOLLM2, max_tokens=300, temperature=1.0,
        seed=seed, output_config={"format": {"type": "json_schema", "schema": schema}}))


@pytest.mark.timeout(900)
def test_the_nastiest_schemas_stay_within_what_is_reserved(serve, measured):
    server = serve("--model", SMOLLM2, "--context", "8192",
                   env={"PENSIEVE_CACHE_MEMORY_MAX_GB": "0"})
    planned = json.loads(run(server.home, "plan", SMOLLM2, "--context", "8192", "--json",
                             env={"PENSIEVE_PORT": "1"}).stdout)["estimate"]
    assert 64 << 20 < planned["grammar_bytes"] < 256 << 20, "modest, and not nothing"
    with Watch(server, planned["weights_mapped_bytes"]) as watch:
        for name, schema in NASTY.items():
            answer = asked(server, schema, seed=1)
            assert answer.status_code == 200, f"{name}: {answer.text}"
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            statuses = set(pool.map(
                lambda schema: asked(server, schema, seed=2).status_code, NASTY.values()))
        assert statuses <= ANSWERED, statuses
    measured(f"worker {watch.peak / 2**20:.0f} MB anonymous at most, {-watch.above / 2**20:.0f} MB "
             f"left of its reservation, {watch.looks} looks; grammars have "
             f"{planned['grammar_bytes'] / 2**20:.0f} MB")
    assert watch.looks > 100
    assert watch.above <= 0
    assert server.worker() == watch.worker, "it lives, and nobody took it for a leak"
