"""./dev bench NAME: runs one benchmark; bench/README.md says what each measures."""

import argparse
import pathlib
import signal
import sys

from servers import ROOT

sys.path.insert(0, str(ROOT / "tests"))  # What runs and attacks servers is shared with the tests.

import check
import serve
import survival
import tools


def arguments():
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "release",
                        help="folder with the programs (default: build/release)")
    names = parser.add_subparsers(dest="name", required=True)
    names.add_parser("check", parents=[shared], help="cost of the memory guard")
    serving = names.add_parser("serve", parents=[shared], help="speed of the server")
    serving.add_argument("--vs", choices=["llama-server"], help="run this server as well")
    serving.add_argument("--runs", type=int, default=7, help="rounds of each measurement")
    serving.add_argument("--only", choices=list(serve.MEASUREMENTS), action="append",
                         help="only this measurement (may be repeated)")
    serving.add_argument("--first", action="store_true",
                         help="on a busy machine: run before all other programs (as root)")
    surviving = names.add_parser("survival", parents=[shared], help="who lives when memory ends")
    surviving.add_argument("--vs", choices=["llama-server"], help="attack this server as well")
    surviving.add_argument("--only", choices=list(survival.SCENARIOS), action="append",
                           metavar="NAME", help="only this scenario (may be repeated)")
    surviving.add_argument("--list", action="store_true", help="say which scenarios there are")
    tooling = names.add_parser("tools", parents=[shared], help="tool calls that keep their schema")
    tooling.add_argument("--vs", choices=["llama-server"], help="run this server as well")
    tooling.add_argument("--runs", type=int, default=5, help="rounds of the mask's cost")
    tooling.add_argument("--only", choices=tools.MEASUREMENTS, action="append",
                         help="only this measurement (may be repeated)")
    return parser.parse_args()


if __name__ == "__main__":
    # A supervisor's SIGTERM ends this program through its finally blocks: no server is left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    chosen = arguments()
    chosen.build = chosen.build.resolve()
    benches = {"check": check.main, "serve": serve.main, "survival": survival.main,
               "tools": tools.main}
    sys.exit(benches[chosen.name](chosen))
