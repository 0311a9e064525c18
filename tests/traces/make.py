#!/usr/bin/env python3
"""Makes the traces that no machine at hand could record (README.md says which). Always the same."""

import math
import os
import random

from record import COLUMNS

FOLDER = os.path.dirname(os.path.abspath(__file__))
GIB = 1 << 20  # In KiB.
TOTAL = 16 * GIB


class Kernel:
    """Counters as the kernel keeps them, from shares and rates."""

    def __init__(self, interval, scope="own"):
        self.interval = interval
        self.scope = scope
        self.averages = [0.0, 0.0]
        self.totals = [0.0, 0.0]
        self.pages = 0.0

    def tick(self, some, full, pages_per_second):
        # psi_avgs: an exponential average over 10 s.
        decay = math.exp(-self.interval / 10)
        for index, share in enumerate((some, full)):
            self.averages[index] = self.averages[index] * decay + share * (1 - decay)
            self.totals[index] += share / 100 * self.interval * 1e6
        self.pages += pages_per_second * self.interval

    def cells(self):
        some, full = (f"{average:.2f}" for average in self.averages)
        return [self.scope, some, round(self.totals[0]), full, round(self.totals[1]), self.scope,
                round(self.pages)]


def write(name, what, rows):
    with open(f"{FOLDER}/{name}.csv", "w") as file:
        file.write(f"# {what}\n# made by make.py\n# floors_mib: 3072 2048 1024 512\n")
        file.write(",".join(COLUMNS) + "\n")
        for row in rows:
            file.write(",".join(str(cell) for cell in row) + "\n")


def rows(seconds, interval, shape, kernel, limited_by="machine"):
    """`shape(t)` gives available KiB (None: lost), some, full, pages/s, held KiB."""
    for tick in range(round(seconds / interval)):
        at = tick * interval
        available, some, full, pages, held = shape(at)
        kernel.tick(some, full, pages)
        reading = ["", "", ""] if available is None else [round(available), TOTAL, limited_by]
        yield [round(at * 1000), *reading, *kernel.cells(), 0, 0, 0, 0, 0, round(held)]


def sawtooth(at):
    noise = random.Random(int(at * 4)).gauss(0, 0.01)
    return (2.4 + noise - 0.09 * (at % 12)) * GIB, 0, 0, 0, 2 * GIB


def reading_lost(at):
    available = None if 10 <= at < 16 or 20 <= at < 21 else 8 * GIB
    return available, 0, 0, 0, 2 * GIB


def swap_storm(at):
    """A desktop with zram: the anonymous memory of everybody is swapped in and out, and page cache
    in use goes on counting as available."""
    calm = at < 10 or at >= 40
    available = (3.5 if at < 10 else 1.6 if at < 40 else 2.3) * GIB
    return available, 0 if calm else 70, 0 if calm else 35, 0 if calm else 20000, 2 * GIB


def own_thrash(at):
    """Our group reads its mapped weights from disk, over and over; the figures look fine."""
    stalls = 10 <= at < 30
    return 2.5 * GIB, 80 if stalls else 0, 55 if stalls else 0, 0, 2 * GIB


def desktop_leak(at):
    noise = random.Random(int(at * 2)).gauss(0, 0.02)
    return max(0.2, 7 + noise - 0.04 * max(0, at - 30)) * GIB, 0, 0, 0, 2 * GIB


def main():
    machine = Kernel(0.25, "machine")
    write("sawtooth", "A program on the machine collects its garbage every 12 s",
          rows(120, 0.25, sawtooth, Kernel(0.25)))
    write("reading-lost", "The reading fails for 6 s, and for 1 s",
          rows(30, 0.25, reading_lost, Kernel(0.25)))
    write("swap-storm", "A desktop without groups swaps itself to a crawl for 30 s",
          rows(60, 0.25, swap_storm, machine))
    write("own-thrash", "Our own group thrashes for 20 s with 2.5 GiB available",
          rows(50, 0.25, own_thrash, Kernel(0.25)))
    write("desktop-leak", "Something on the desktop leaks 40 MiB/s until nothing is left",
          rows(200, 0.5, desktop_leak, Kernel(0.5)))


if __name__ == "__main__":
    main()
