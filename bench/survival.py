"""bench survival: who is still there when memory runs out. bench/README.md says how it works."""

import asyncio
import pathlib
import tempfile
import time

import machine
import survival_arena
from servers import llama_server_program
from survival_arena import MIB, Arena, CannotStart, Row, nearest_rank
from survival_scenarios import SCENARIOS


async def fight(scenario, arena):
    await scenario.attack(arena)
    await arena.finish_tasks()


def run_one(scenario, build, pensieve):
    """One scenario against one server, from nothing to nothing; returns its row."""
    if not pensieve and scenario.not_for_llama:
        return Row(scenario.name, not_run=scenario.not_for_llama)
    with tempfile.TemporaryDirectory(prefix="survival-") as name:
        arena = Arena(scenario.name, pathlib.Path(name), build, limit_mib=scenario.limit_mib,
                      floors=scenario.floors, pensieve=pensieve,
                      scripted=scenario.scripted)
        try:
            asyncio.run(fight(scenario, arena))
        except CannotStart as error:
            arena.row.require(False, f"cannot start: {error}")
        except (AssertionError, OSError, LookupError, TypeError) as error:
            # A server that is gone takes what is asked of it along; the row says which.
            arena.row.require(False, f"{type(error).__name__}: {error}")
        finally:
            arena.close()
        if arena.row.faults:
            keep_logs(arena)
        arena.row.ends = arena.outcomes_text()
        return arena.row


def keep_logs(arena):
    """What the servers of a lost scenario said last."""
    for server in arena.servers:
        print(f"--- {arena.row.name}: the end of its log\n{server.log()[-2500:]}\n---", flush=True)


COLUMNS = "{:<24}{:<9}{:>9}{:>8}  {:<44}{:>9}{:>7}{:>11}{:>7}{:>6}"


def print_head():
    print(COLUMNS.format("scenario", "verdict", "door ms", "others", "requests", "503 ms",
                         "again", "peak MiB", "kills", "s"))


def print_row(row):
    if row.not_run:
        print(f"{row.name:<24}{'-':<9}not run: {row.not_run}", flush=True)
        return
    crossing = f"{nearest_rank(row.crossings, 0.99) * 1000:.0f}" if row.crossings else "-"
    again = f"{max(row.again):.1f}" if row.again else "-"
    door = f"{row.door_slowest * 1000:.0f}" + (f"!{row.door_faults}" if row.door_faults else "")
    print(COLUMNS.format(row.name, "survived" if row.survived else "LOST", door,
                         "died" if row.others_died else "live", row.ends, crossing, again,
                         f"{row.peak // MIB}/{row.limit // MIB}", row.kills,
                         f"{row.seconds:.0f}"), flush=True)
    for fault in row.faults:
        print(f"    {fault}")


def run_all(title, names, build, pensieve):
    """Returns whether every scenario was survived."""
    print(f"\n{title}")
    print_head()
    rows = []
    for name in names:
        rows.append(run_one(SCENARIOS[name], build, pensieve))
        print_row(rows[-1])
    fought = [row for row in rows if not row.not_run]
    print(f"survived={sum(row.survived for row in fought)}/{len(fought)} "
          f"lost={sum(row.lost for row in fought)} wedged={sum(row.wedged for row in fought)}",
          flush=True)
    return all(row.survived for row in fought)


def main(arguments):
    if arguments.list:
        for each in SCENARIOS.values():
            print(f"{each.name:<26}{each.text}")
        return 0
    names = arguments.only or list(SCENARIOS)
    print(machine.describe())
    print(__doc__.split(".")[0] + ": door ms is the slowest /health; again is seconds from relief "
          "to an answer;\n503 ms is the time from crossing Critical to the first 503 (p99)")
    began = time.monotonic()
    if arguments.vs:
        survival_arena.LlamaServer.program = llama_server_program()
        run_all("llama-server, its own defaults", names, arguments.build, False)
    good = run_all("pensieve", names, arguments.build, True)
    if arguments.vs:
        print(f"both: {time.monotonic() - began:.0f} s")
    return 0 if good else 1
