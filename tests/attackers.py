"""Small programs that attack a memory group, or watch a server from outside; and their handles.

Each is a process of its own, so that what one of them measures is not slowed down by another, and
so that the kernel may choose it as its victim. As a program: attackers.py hog|door|probe ARGUMENTS.
Commands come as lines on stdin, answers go as lines of JSON to stdout; its end is the end of stdin.
"""

import http.client
import json
import mmap
import pathlib
import selectors
import subprocess
import sys
import time

CHUNK_BYTES = 1 << 20
HELLO_SECONDS = 20


# --- programs -------------------------------------------------------------------------------------

def group_available(folder):
    """Limit minus use plus file cache, as a server in the group reckons it."""
    group = pathlib.Path(folder)
    v1 = (group / "memory.limit_in_bytes").exists()
    limit = int((group / ("memory.limit_in_bytes" if v1 else "memory.max")).read_text())
    used = int((group / ("memory.usage_in_bytes" if v1 else "memory.current")).read_text())
    prefix = "total_" if v1 else ""
    names = (prefix + "inactive_file", prefix + "active_file")
    with open(group / "memory.stat", encoding="ascii") as stat:
        cache = sum(int(value) for name, value in map(str.split, stat) if name in names)
    return limit - max(used - cache, 0)


class Held:
    """Anonymous memory that is really taken, and given back to the kernel at once."""

    def __init__(self):
        self.chunks = []

    def grow(self):
        chunk = mmap.mmap(-1, CHUNK_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        chunk[::mmap.PAGESIZE] = b"x" * len(chunk[::mmap.PAGESIZE])
        self.chunks.append(chunk)

    def shrink(self):
        self.chunks.pop().close()

    @property
    def size(self):
        return len(self.chunks) * CHUNK_BYTES


def keep_pace(began, taken, mib_per_second):
    if mib_per_second:
        due = began + taken / (mib_per_second * CHUNK_BYTES)
        time.sleep(max(0.0, due - time.monotonic()))


def hog_main(folder, floor):
    """hold BYTES [MIB_PER_S] | reach AVAILABLE_BYTES MIB_PER_S | cache FILE BYTES.

    Without a rate, or with 0, all of it is taken at once; it is given back at once in any case.

    The answer says when the group's available memory went below `floor`: the moment before the
    piece was taken that did it, so that what is measured from there is an upper bound.
    """
    held, floor = Held(), int(floor)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command, *words = line.split()
        crossed, began, start = None, time.monotonic(), held.size
        rate = float(words[1]) if command != "cache" and len(words) > 1 else 0
        if command == "hold":
            while held.size < int(words[0]):
                held.grow()
                keep_pace(began, held.size - start, rate)
            while held.size > int(words[0]):
                held.shrink()
        elif command == "reach":
            while group_available(folder) > int(words[0]):
                before = time.monotonic()
                held.grow()
                if crossed is None and group_available(folder) < floor:
                    crossed = before
                keep_pace(began, held.size - start, rate)
        elif command == "cache":
            with open(words[0], "wb") as file:
                for _ in range(int(words[1]) // CHUNK_BYTES):
                    file.write(b"c" * CHUNK_BYTES)
            with open(words[0], "rb") as file:
                while file.read(CHUNK_BYTES):
                    pass
        print(json.dumps({"held": held.size, "crossed": crossed, "done": time.monotonic()}),
              flush=True)


def ask_health(connection):
    connection.request("GET", "/health")
    response = connection.getresponse()
    response.read()
    return response.status


def door_main(port, interval_ms):
    """Asks /health all the time, on a kept connection and on a new one in turn."""
    kept, polls, slowest, faults = None, 0, 0.0, []
    watch = selectors.DefaultSelector()
    watch.register(sys.stdin, selectors.EVENT_READ)
    print(json.dumps({"ready": True}), flush=True)
    while not watch.select(0):
        began = time.monotonic()
        fresh = None
        try:
            if polls % 2:
                fresh = http.client.HTTPConnection("127.0.0.1", int(port), timeout=5)
                ask_health(fresh)
            else:
                kept = kept or http.client.HTTPConnection("127.0.0.1", int(port), timeout=5)
                ask_health(kept)
        except (OSError, http.client.HTTPException) as error:
            faults.append(f"{'new' if fresh else 'kept'} connection: "
                          f"{type(error).__name__} {error}")
            if kept and not fresh:
                kept.close()
                kept = None
            time.sleep(0.05)  # A dead server answers at once; its story need not be long.
        if fresh:
            fresh.close()
        took = time.monotonic() - began
        slowest = max(slowest, took)
        polls += 1
        time.sleep(max(0.0, int(interval_ms) / 1000 - took))
    print(json.dumps({"polls": polls, "slowest": slowest, "faults": len(faults),
                      "first_fault": faults[0] if faults else ""}), flush=True)


def probe_main(port, content, interval_ms):
    """Sends the request `content` all the time and notes each change of the status."""
    changes, status, asked, connection = [], None, 0, None
    watch = selectors.DefaultSelector()
    watch.register(sys.stdin, selectors.EVENT_READ)
    print(json.dumps({"ready": True}), flush=True)
    while not watch.select(0):
        began = time.monotonic()
        try:
            connection = connection or http.client.HTTPConnection("127.0.0.1", int(port),
                                                                  timeout=60)
            connection.request("POST", "/v1/messages", content,
                               {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            now = response.status
        except (OSError, http.client.HTTPException):
            now = 0
            if connection:
                connection.close()
            connection = None
        asked += 1
        if now != status:
            changes.append((time.monotonic(), now))
            status = now
        time.sleep(max(0.0, int(interval_ms) / 1000 - (time.monotonic() - began)))
    print(json.dumps({"asked": asked, "changes": changes}), flush=True)


# --- handles --------------------------------------------------------------------------------------

class Attacker:
    """One of the programs above, running. `group`: the memory group that it joins, if any."""

    def __init__(self, *words, group=None):
        command = [sys.executable, "-S", __file__, *map(str, words)]
        if group is not None:
            command = group.command(command)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        self.answer()

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process.poll() is None

    def send(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def answer(self):
        """The next answer; None where the program has ended, e.g. by the kernel's hand."""
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def tell(self, *words):
        try:
            self.send(*words)
        except BrokenPipeError:
            return None
        return self.answer()

    def end(self):
        """Ends it by the end of its stdin; returns its last answer."""
        last = None
        try:
            self.process.stdin.close()
            last = self.answer()
        except (BrokenPipeError, ValueError):
            pass
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        return last


class Hog(Attacker):
    """Takes and gives back memory in a group. `floor`: whose crossing it reports."""

    def __init__(self, group, floor=0):
        super().__init__("hog", group.path, int(floor), group=group)


class Door(Attacker):
    """Watches the front door: end() says {"polls", "slowest", "faults", "first_fault"}."""

    def __init__(self, port, interval_ms=20):
        super().__init__("door", port, interval_ms)


class Probe(Attacker):
    """Asks all the time: end() says {"asked", "changes": [(time, status)]}; 0 is no answer."""

    def __init__(self, port, content, interval_ms=3):
        super().__init__("probe", port, json.dumps(content), interval_ms)


if __name__ == "__main__":
    {"hog": hog_main, "door": door_main, "probe": probe_main}[sys.argv[1]](*sys.argv[2:])
