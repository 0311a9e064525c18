"""bench tools: do calls keep their schema, and what does it cost to keep one, token by token?

The cost is the time of a token of an answer that keeps a schema, less that of a token of a free
answer of the same length to the same prompt: each program is compared with itself, so what else
differs between two servers is not in it. All programs run, and one is asked at a time, in rounds
whose order turns.
"""

import contextlib
import http.client
import json
import pathlib
import statistics
import tempfile
import time

import httpx

import machine
import schemas
import serve
from servers import MODEL, LlamaServer, llama_server_program, start_pensieve

SEEDS = 10
RATIO_MAX = 0.2
TIMEOUT_SECONDS = 300
# Long answers: the first token of each is not counted.
MASK_SCHEMAS = ("forty_properties", "ten_deep", "long_texts_and_lists", "list_of_objects")
PROMPT = "Write one JSON object with sensible values."
ANSWER_TOKENS = 300


def deltas(port, path, body, text_of):
    """The times at which pieces of text came in."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    moments = []
    with contextlib.closing(connection):
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise SystemExit(f"{path}: {response.status} {response.read()[:500]}")
        for line in response:
            if line.startswith(b"data: {") and text_of(json.loads(line[6:])):
                moments.append(time.monotonic())
    return moments


def anthropic_text(event):
    return event.get("delta", {}).get("text")


def openai_text(event):
    choices = event.get("choices") or [{}]
    return choices[0].get("delta", {}).get("content")


def ask(program, schema, tokens_max):
    """The times of one answer's pieces; free where there is no schema."""
    body = {"model": MODEL.stem, "max_tokens": tokens_max, "temperature": 0, "stream": True,
            "messages": [{"role": "user", "content": PROMPT}]}
    if isinstance(program, LlamaServer):
        if schema:
            body["response_format"] = {"type": "json_schema",
                                       "json_schema": {"name": "answer", "schema": schema}}
        return deltas(program.port, "/v1/chat/completions", body, openai_text)
    if schema:
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    return deltas(program.port, "/v1/messages", body, anthropic_text)


def mask_cost(program, _seed):
    """Milliseconds per token that keeping a schema costs, over all schemas, and their tokens."""
    cost, counted = 0.0, 0
    for name in MASK_SCHEMAS:
        kept = ask(program, dict(schemas.SCHEMAS)[name], ANSWER_TOKENS)
        free = ask(program, None, len(kept))
        shared = min(len(kept), len(free))
        cost += (kept[shared - 1] - kept[0]) - (free[shared - 1] - free[0])
        counted += shared - 1
    return {"ms": 1000 * cost / counted, "tokens": counted}


def validity(program):
    """Asks for all calls; returns how many there were, and what was wrong with each bad one."""
    wrong, asked = [], 0
    with httpx.Client(base_url=f"http://127.0.0.1:{program.port}", timeout=TIMEOUT_SECONDS,
                      trust_env=False) as client:
        for name, schema in schemas.SCHEMAS:
            for seed in range(SEEDS):
                asked += 1
                try:
                    found = schemas.problems(schema, schemas.call(client, MODEL.stem, name, schema,
                                                                  seed))
                except AssertionError as error:
                    found = [str(error)[:300]]
                wrong += [f"{name}, seed {seed}: {problem}" for problem in found[:1]]
    return asked, wrong


def print_costs(found, other):
    """Returns whether the goal is met."""
    ours = [figures["pensieve"]["ms"] for figures in found]
    print(f"\nmask, ms per token of {found[0]['pensieve']['tokens']} in {len(found)} rounds, "
          "median (least-most)")
    print(f"  pensieve       {serve.spread(ours)}")
    if not other:
        return True
    theirs = [figures[other]["ms"] for figures in found]
    ratio = statistics.median(ours) / statistics.median(theirs)
    met = statistics.median(theirs) > 0 and ratio <= RATIO_MAX
    print(f"  {other:<14} {serve.spread(theirs)}")
    print(f"  pensieve/{other}: {ratio:.3f}; goal <= {RATIO_MAX}: {'ok' if met else 'MISS'}")
    return met


def main(arguments):
    print(machine.describe())
    programs = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        try:
            programs.append(start_pensieve(folder, arguments.build))
            if arguments.vs:
                programs.append(LlamaServer(folder, llama_server_program()))
            for program in programs:
                print(f"{program.name}: {' '.join(program.command)}")
                mask_cost(program, 0)  # Warms up, and compiles the grammars.
            found = []
            for number in range(arguments.runs):
                figures, others = serve.one_round(mask_cost, programs, number)
                found.append(figures)
                print(f"  mask {number + 1}: others {others:.2f} cores; " + ", ".join(
                    f"{each} {cost['ms']:.3f} ms" for each, cost in sorted(figures.items())),
                    flush=True)
            asked, wrong = validity(programs[0])
        finally:
            for program in programs:
                program.stop()
    good = print_costs(found, arguments.vs)
    print(f"\nvalid calls: {asked - len(wrong)} of {asked} over {len(schemas.SCHEMAS)} schemas; "
          f"goal all: {'MISS' if wrong else 'ok'}")
    print("\n".join(wrong[:20]))
    return 0 if good and not wrong else 1
