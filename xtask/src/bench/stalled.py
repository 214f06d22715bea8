"""A client that stops reading in the middle of a large result, and its siblings meanwhile.

Arguments: connection string, pgbench, seconds to stop for. Prints a line `phase NAME` when a phase begins,
and `value NAME NUMBER` for the siblings' latency in milliseconds, before and while the reader stands still.
"""

import subprocess
import sys
import time

import psycopg

ADDRESS, PGBENCH, SECONDS = sys.argv[1], sys.argv[2], int(sys.argv[3])
ROWS, ROW = 1024, 1024 * 1024


def siblings(phase, seconds):
    print("phase", phase, flush=True)
    out = subprocess.run(
        [PGBENCH, "-n", "-S", "-c", "4", "-j", "1", "-T", str(seconds), ADDRESS],
        check=True, capture_output=True, text=True,
    ).stdout
    average = next(line for line in out.splitlines() if line.startswith("latency average"))
    print("value", f"latency-{phase}", average.split("=")[1].split()[0], flush=True)


siblings("before", 10)
with psycopg.connect(ADDRESS) as connection, connection.cursor() as cursor:
    print("phase reading", flush=True)
    total = 0
    with cursor.copy(f"COPY (SELECT repeat('x', {ROW}) FROM generate_series(1, {ROWS})) TO STDOUT") as copy:
        for chunk in copy:
            stop = total < ROWS * ROW // 2 <= total + len(chunk)
            total += len(chunk)
            if stop:
                began = time.monotonic()
                siblings("stopped", max(1, SECONDS - 1))
                time.sleep(max(0, SECONDS - (time.monotonic() - began)))
                print("phase reading", flush=True)
    print("phase after", flush=True)
    print("value bytes", total, flush=True)
