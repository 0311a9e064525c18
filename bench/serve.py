"""bench serve: pensieve against the engine alone and against llama-server, side by side.

All programs run at the same time and only one is asked at a time, in rounds whose order turns.
What is compared are the figures of one round, so that a machine that others slow down for a
while slows down both sides of a ratio; rounds in which others were busy are repeated.
"""

import itertools
import pathlib
import random
import statistics
import tempfile

import machine
from servers import (CONTEXT_TOKENS, STREAMS_MAX, THREADS, EngineAlone, LlamaServer,
                     llama_server_program, start_pensieve)
from sse_client import Stream, Streams, ask

DECODE_TOKENS = 192
ANSWER_TOKENS = 32
HISTORY_WORDS = 920       # About 1,000 tokens with the first answer.
LONG_PROMPT_WORDS = 3000
STORIES = ["the sea", "a mountain", "an old city", "the desert"]

OTHERS_MAX_CORES = 0.15   # Choice: a round counts as quiet below this.
ROUNDS_PER_RUN = 2        # At most so many rounds for each that is wanted.
QUIET_WAIT_SECONDS = 10   # Before a round; then it is run on the busy machine.

WORDS = ("time person year way day thing man world life hand part child eye woman place work week "
         "case point company number group problem fact water room money story month book night "
         "study game house business service friend father power hour line member law car city "
         "community name team minute idea body information back parent face level office door "
         "health art war history party result change morning reason research girl guy moment air "
         "teacher force education and then of with under over because while into from after "
         "before about small large early late quick slow green blue bright cold warm").split()


def fresh_text(words, seed):
    """Text that no server has in its cache: it differs from the first word on."""
    source = random.Random(seed)
    return " ".join(source.choice(WORDS) for _ in range(words))


# Makes the prompts of each round its own; all programs of a round get the same ones.
SEEDS = itertools.count(random.SystemRandom().randrange(1 << 30) * 100, 100)


def decode(program, streams, fresh=True):
    """Tokens per second while all streams run, the first token of each excluded.

    `fresh`: no conversation of before is kept (llama-server moves them out of the way itself).
    """
    if isinstance(program, EngineAlone):
        return {"rate": program.tokens_per_second(f"decode {streams} {DECODE_TOKENS}")}
    if fresh:
        program.forget()
    running = Streams()
    started = []
    for story in STORIES[:streams]:
        prompt = f"Write a very long and detailed story about {story}. Do not stop early."
        started.append(Stream(program.port, prompt, DECODE_TOKENS))
    for stream in started:
        running.start(stream)
    running.run()
    running.close()
    results = [stream.result() for stream in started]
    for result in results:
        if result.output_tokens != DECODE_TOKENS:
            raise SystemExit(f"{program.name} stopped after {result.output_tokens} tokens "
                             f"({result.stop_reason}); {DECODE_TOKENS} were asked for")
    begin = max(result.deltas[0] for result in results)
    end = min(result.deltas[-1] for result in results)
    tokens = 0.0
    for result in results:
        within = sum(1 for moment in result.deltas if begin < moment <= end)
        # A piece of text may be more than one token (bytes of one character).
        tokens += within * (result.output_tokens - 1) / (len(result.deltas) - 1)
    return {"rate": tokens / (end - begin), "tokens_in": results[0].input_tokens}


def turn(program, seed):
    """Time to first token of a conversation's first turn and of its next."""
    if isinstance(program, EngineAlone):
        return {}
    text = fresh_text(HISTORY_WORDS, seed)
    messages = [{"role": "user", "content": f"{text}\nWhat is this text about?"}]
    first = ask(program.port, messages, ANSWER_TOKENS)
    messages += [{"role": "assistant", "content": first.text},
                 {"role": "user", "content": "Say that again in other words, and shorter."}]
    following = ask(program.port, messages, ANSWER_TOKENS)
    return {"first_s": first.first_seconds, "next_s": following.first_seconds,
            "tokens_in": following.input_tokens, "tokens_cached": following.cached_tokens}


def decode_beside_kept(program, seed):
    """Like decode with one stream, after four conversations whose next turn may come any time."""
    if not isinstance(program, EngineAlone):
        for number in range(STREAMS_MAX):
            turn(program, seed + number)
    return decode(program, 1, fresh=False)


def gap(program, seed):
    """Longest silence of a running stream while another client's long prompt is worked on."""
    if isinstance(program, EngineAlone):
        return {}
    running = Streams()
    stream = Stream(program.port, "Count from 1 to 3000 in words, one number per line.", 2500)
    text = fresh_text(LONG_PROMPT_WORDS, seed)
    other = Stream(program.port, f"{text}\nWhat is this text about?", 4)
    running.start(stream)
    running.run(lambda: stream.deltas_seen < 16)
    running.start(other)
    running.run(lambda: not other.complete and not stream.complete)
    until = stream.deltas_seen + 8
    running.run(lambda: stream.deltas_seen < until and not stream.complete)
    running.close()
    if not other.complete:
        raise SystemExit(f"{program.name}: the running stream ended before the long prompt did")
    seen, long_prompt = stream.result(), other.result()
    moments = [moment for moment in seen.deltas if moment >= other.sent_at]
    before = [moment for moment in seen.deltas if moment < other.sent_at]
    moments = before[-1:] + moments
    longest = max(after - moment for moment, after in zip(moments, moments[1:]))
    return {"gap_s": longest, "long_first_s": long_prompt.first_seconds,
            "tokens_in": long_prompt.input_tokens}


def prefill(program):
    """Prompt tokens per second; only the engine alone can be asked for just that."""
    if not isinstance(program, EngineAlone):
        return {}
    return {"rate": program.tokens_per_second("prefill 1000")}


MEASUREMENTS = {
    "prefill": lambda program, seed: prefill(program),
    "decode-1": lambda program, seed: decode(program, 1),
    "decode-4": lambda program, seed: decode(program, STREAMS_MAX),
    "turn": turn,
    "decode-kept": decode_beside_kept,
    "gap": gap,
}


def one_round(measure, programs, number):
    """Asks each program once; returns name -> figures, and the most that others used."""
    seed = next(SEEDS)
    order = programs[number % len(programs):] + programs[:number % len(programs)]
    figures, busiest = {}, 0.0
    for program in order:
        interval = machine.Interval(program.pids)
        found = measure(program, seed)
        used, others = interval.end()
        if found:
            figures[program.name] = {**found, "cpu_s": used}
            busiest = max(busiest, others)
    return figures, busiest


def rounds(name, programs, runs, first):
    """Rounds until `runs` of them counted; all of them where too few did.

    Where this program is `first` on the cores, all rounds count: others get what is left over.
    """
    quiet, all_rounds = [], []
    for number in range(runs * ROUNDS_PER_RUN):
        if not first:
            machine.wait_until_quiet(OTHERS_MAX_CORES, QUIET_WAIT_SECONDS)
        figures, others = one_round(MEASUREMENTS[name], programs, number)
        all_rounds.append(figures)
        if first or others <= OTHERS_MAX_CORES:
            quiet.append(figures)
        shown = ", ".join(
            f"{program} " + " ".join(f"{key}={value:.4g}" for key, value in found.items())
            for program, found in sorted(figures.items()))
        print(f"  {name} {number + 1}: others {others:.2f} cores; {shown}", flush=True)
        if len(quiet) == runs:
            break
    enough = len(quiet) >= max(3, runs // 2)
    return (quiet if enough else all_rounds), f"{len(quiet)} of {len(all_rounds)}"


class Line:
    """One row of the table: which figure, its unit, the goal, and how a ratio is judged."""

    def __init__(self, text, measurement, key, scale=1.0, ratio_min=None, ratio_max=None,
                 figure_max=None):
        self.text, self.measurement, self.key, self.scale = text, measurement, key, scale
        self.ratio_min, self.ratio_max, self.figure_max = ratio_min, ratio_max, figure_max

    def figures(self, found, program):
        return [figures[program][self.key] * self.scale for figures in found
                if program in figures]

    def ratios(self, found, other):
        return [figures["pensieve"][self.key] / figures[other][self.key] for figures in found
                if "pensieve" in figures and other in figures]

    def verdict(self, figure, ratio):
        """(goal, whether it is met); met is None where there is none or nothing to compare."""
        if self.figure_max is not None and figure is not None:
            return f"<= {self.figure_max:g}", figure <= self.figure_max
        if ratio is not None and self.ratio_min is not None:
            return f"ratio >= {self.ratio_min:g}", ratio >= self.ratio_min
        if ratio is not None and self.ratio_max is not None:
            return f"ratio <= {self.ratio_max:g}", ratio <= self.ratio_max
        return "", None


LINES = [
    Line("prefill, 1,000 tokens, tokens/s", "prefill", "rate"),
    Line("decode, 1 stream, tokens/s", "decode-1", "rate", ratio_min=1.0),
    Line("decode, 4 streams, tokens/s", "decode-4", "rate", ratio_min=1.0),
    Line("first token, first turn, ms", "turn", "first_s", 1000),
    Line("first token, next turn, ms", "turn", "next_s", 1000, ratio_max=1.1),
    Line("decode beside 4 kept conversations", "decode-kept", "rate"),
    Line("longest gap, 3,000-word prompt, ms", "gap", "gap_s", 1000, figure_max=300),
    Line("first token of that prompt, ms", "gap", "long_first_s", 1000),
]


def spread(values):
    """Median and range."""
    if not values:
        return "-"
    places = 0 if min(values) >= 100 else 2
    low, middle, high = (f"{value:,.{places}f}" for value in
                         (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low}-{high})"


def print_table(found, other):
    """Returns whether every goal is met."""
    good = True
    row = "{:<36}{:>25}{:>25}{:>25}{:>23}{:>17}   {}".format
    print("\n" + row("median (least-most)", "pensieve", other or "-", "engine alone",
                     f"pensieve/{other or '-'}", "pensieve/engine", "goal"))
    for line in LINES:
        if line.measurement not in found:
            continue
        measured, quiet = found[line.measurement]
        ours = line.figures(measured, "pensieve")
        ratios = line.ratios(measured, other) if other else []
        to_engine = line.ratios(measured, "engine")
        goal, met = line.verdict(statistics.median(ours) if ours else None,
                                 statistics.median(ratios) if ratios else None)
        good = good and met is not False
        print(row(line.text, spread(ours), spread(line.figures(measured, other)),
                  spread(line.figures(measured, "engine")), spread(ratios),
                  f"{statistics.median(to_engine):.3f}" if to_engine else "-",
                  (f"{goal}: {'ok' if met else 'MISS'}; " if goal else "")
                  + f"rounds {quiet}"))
    return good


def main(arguments):
    names = arguments.only or list(MEASUREMENTS)
    print(machine.describe())
    print(f"each: context {CONTEXT_TOKENS}, {STREAMS_MAX} streams, {THREADS} threads, temperature "
          "0")
    first = arguments.first and machine.take_priority()
    print("priority: " + ("before all other programs; every round counts" if first else
                          "as others; a round counts when they use at most "
                          f"{OTHERS_MAX_CORES} cores"))
    programs = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        try:
            programs.append(start_pensieve(folder, arguments.build))
            if arguments.vs:
                programs.append(LlamaServer(folder, llama_server_program()))
            programs.append(EngineAlone(folder, arguments.build))
            for program in programs:
                print(f"{program.name}: {' '.join(program.command)}")
                decode(program, STREAMS_MAX)  # Warms up: pages of the model, all sequences.
            found = {each: rounds(each, programs, arguments.runs, first) for each in names}
        finally:
            for program in programs:
                program.stop()
    return 0 if print_table(found, arguments.vs) else 1
