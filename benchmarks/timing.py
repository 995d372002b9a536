"""Time one row as one side does it, with pyperf: `python timing.py TABLE ROW SIDE -o result.json`.

Without a result, the side refuses: a first call told so.
"""

import os
import sys
from warnings import simplefilter

import pyperf
from rows import EVERYWHERE, ROWS

simplefilter("ignore", RuntimeWarning)  # what a side refuses is never awaited
bench = pyperf.Runner(add_cmdline_args=lambda command, args: command.extend(args.what))
bench.argparser.add_argument("what", nargs=3, metavar=("TABLE", "ROW", "SIDE"))
table, row, side = bench.parse_args().what
rows = {"rivals": ROWS, "everywhere": EVERYWHERE}[table]
measure = rows[row].prepare(side)
try:
    measure(1)
except RuntimeError as error:
    print(f"{side} refuses: {error}")
    sys.exit()
bench.bench_time_func(row, measure, inner_loops=rows[row].items)
sys.stdout.flush()
os._exit(0)  # whatever a side has kept open
