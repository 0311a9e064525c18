"""bench tools: do calls keep their schema, and what does it cost to keep one, token by token?

The cost is the processor time of a token of an answer that keeps a schema, less that of a token of
a free answer of the same length to the same prompt: each program is compared with itself, so what
else differs between two servers is not in it. Processor time, because the difference is less than
a hundredth of a token's, and what others take from this machine would drown it; with one thread, so
that no other one spins meanwhile. All programs run, and one is asked at a time, in rounds whose
order turns.
"""

import concurrent.futures
import contextlib
import http.client
import itertools
import json
import pathlib
import statistics
import tempfile

import httpx

import machine
import schemas
import serve
from servers import (MODEL, STREAMS_MAX, LlamaServer, llama_server_program,
                     start_pensieve)

MEASUREMENTS = ("mask", "calls")
SEEDS = 10
RATIO_MAX = 0.2
TIMEOUT_SECONDS = 300
# Long answers: the first token of each is not counted.
MASK_SCHEMAS = ("forty_properties", "ten_deep", "long_texts_and_lists", "list_of_objects")
# Free answers are to be at least as long as those that keep a schema.
PROMPT = "Write a very long and detailed story about the sea. Do not stop early."
ANSWER_TOKENS = 300
THREADS = 1
PIECES_LESS_MAX = 10  # A character may take several tokens, and comes in one piece.


def processor_seconds(program):
    """What all threads of a program have used so far."""
    total = 0
    for pid in program.pids:
        for path in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"):
            total += int(path.read_text().split()[0])
    return total / 1e9


def processor_times(program, path, body, text_of):
    """The processor time that the program has used when each piece of text came in."""
    connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=TIMEOUT_SECONDS)
    used = []
    with contextlib.closing(connection):
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise SystemExit(f"{path}: {response.status} {response.read()[:500]}")
        for line in response:
            if line.startswith(b"data: {") and text_of(json.loads(line[6:])):
                used.append(processor_seconds(program))
    return used


def anthropic_text(event):
    return event.get("delta", {}).get("text")


def openai_text(event):
    choices = event.get("choices") or [{}]
    return choices[0].get("delta", {}).get("content")


def ask(program, schema, tokens_max):
    """The processor times of one answer's pieces; free where there is no schema."""
    body = {"model": MODEL.stem, "max_tokens": tokens_max, "temperature": 0, "stream": True,
            "messages": [{"role": "user", "content": PROMPT}]}
    if isinstance(program, LlamaServer):
        if schema:
            body["response_format"] = {"type": "json_schema",
                                       "json_schema": {"name": "answer", "schema": schema}}
        return processor_times(program, "/v1/chat/completions", body, openai_text)
    if schema:
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    return processor_times(program, "/v1/messages", body, anthropic_text)


def mask_cost(program, _seed):
    """Milliseconds of processor that a token costs more for keeping a schema; and the tokens."""
    cost, counted = 0.0, 0
    for name in MASK_SCHEMAS:
        kept = ask(program, dict(schemas.SCHEMAS)[name], ANSWER_TOKENS)
        free = ask(program, None, len(kept))
        if len(free) < len(kept) - PIECES_LESS_MAX:
            raise SystemExit(f"{program.name} ended a free answer after {len(free)} pieces of "
                             f"{len(kept)}")
        shared = min(len(kept), len(free))
        cost += (kept[shared - 1] - kept[0]) - (free[shared - 1] - free[0])
        counted += shared - 1
    return {"ms": 1000 * cost / counted, "tokens": counted}


def validity(program):
    """Asks for all calls; returns how many there were, and what was wrong with each bad one."""
    with httpx.Client(base_url=f"http://127.0.0.1:{program.port}", timeout=TIMEOUT_SECONDS,
                      trust_env=False) as client:
        def wrong_with(asked):
            (name, schema), seed = asked
            try:
                found = schemas.problems(schema, schemas.call(client, MODEL.stem, name, schema,
                                                              seed))
            except AssertionError as error:
                found = [str(error)[:300]]
            return [f"{name}, seed {seed}: {problem}" for problem in found[:1]]

        asked = list(itertools.product(schemas.SCHEMAS, range(SEEDS)))
        with concurrent.futures.ThreadPoolExecutor(STREAMS_MAX) as pool:
            wrong = [problem for problems in pool.map(wrong_with, asked) for problem in problems]
    return len(asked), wrong


def judge(ours, theirs):
    """What to print of our cost as a share of theirs, and whether the goal is met.

    A cost is a difference of two measured figures: a round can find it negative, and then its size
    says how much the others may be wrong. So the goal is asked of the largest round, whichever
    side of zero it lies on, and a median that is no larger than the rounds differ is no figure.
    """
    cost, other = statistics.median(ours), statistics.median(theirs)
    if other <= 0:
        return f"the other's cost is below the noise; goal <= {RATIO_MAX}: MISS", False
    noise = max(abs(each - cost) for each in ours)
    most = max(abs(each) for each in ours) / other
    share = f"below the noise of {noise:.3f} ms" if cost <= noise else f"{cost / other:.3f}"
    met = most <= RATIO_MAX
    return f"{share}, at most {most:.3f}; goal <= {RATIO_MAX}: {'ok' if met else 'MISS'}", met


def print_costs(found, other):
    """Returns whether the goal is met."""
    ours = [figures["pensieve"]["ms"] for figures in found]
    print(f"\nmask, ms of processor per token of {found[0]['pensieve']['tokens']} in {len(found)} "
          "rounds, median (least-most)")
    print(f"  pensieve       {serve.spread(ours)}")
    if not other:
        return True
    theirs = [figures[other]["ms"] for figures in found]
    said, met = judge(ours, theirs)
    print(f"  {other:<14} {serve.spread(theirs)}")
    print(f"  pensieve/{other}: {said}")
    return met


def start_programs(folder, arguments):
    """Whatever starts is in the list that is given back, and ends with it."""
    programs = [start_pensieve(folder, arguments.build, THREADS)]
    if arguments.vs:
        try:
            programs.append(LlamaServer(folder, llama_server_program(), THREADS))
        except BaseException:
            programs[0].stop()
            raise
    for program in programs:
        print(f"{program.name}: {' '.join(program.command)}", flush=True)
    return programs


def mask_rounds(programs, arguments):
    for program in programs:
        mask_cost(program, 0)  # Warms up, and compiles the grammars.
    found = []
    for number in range(arguments.runs):
        figures, others = serve.one_round(mask_cost, programs, number)
        found.append(figures)
        print(f"  mask {number + 1}: others {others:.2f} cores; " + ", ".join(
            f"{each} {cost['ms']:.3f} ms" for each, cost in sorted(figures.items())), flush=True)
    return found


def print_validity(asked, wrong):
    print(f"\nvalid calls: {asked - len(wrong)} of {asked} over {len(schemas.SCHEMAS)} schemas; "
          f"goal all: {'MISS' if wrong else 'ok'}")
    print("\n".join(wrong[:20]))
    return not wrong


def main(arguments):
    print(machine.describe())
    wanted = arguments.only or MEASUREMENTS
    good = True
    with tempfile.TemporaryDirectory() as name:
        programs = start_programs(pathlib.Path(name), arguments)
        try:
            if "mask" in wanted:
                good = print_costs(mask_rounds(programs, arguments), arguments.vs)
            if "calls" in wanted:
                good = print_validity(*validity(programs[0])) and good
        finally:
            for program in programs:
                program.stop()
    return 0 if good else 1
