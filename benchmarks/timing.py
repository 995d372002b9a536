"""Time one row as one side does it, with pyperf: `python timing.py ROW SIDE -o result.json`.

Without a result, the side refuses: a first call told so.
"""

import os
import sys
from warnings import simplefilter

import pyperf
from rows import ROWS

simplefilter("ignore", RuntimeWarning)  # what a side refuses is never awaited
bench = pyperf.Runner(add_cmdline_args=lambda command, args: command.extend(args.what))
bench.argparser.add_argument("what", nargs=2, metavar=("ROW", "SIDE"))
row, side = bench.parse_args().what
measure = ROWS[row].prepare(side)
try:
    measure(1)
except RuntimeError as error:
    print(f"{side} refuses: {error}")
    sys.exit()
bench.bench_time_func(row, measure, inner_loops=ROWS[row].items)
sys.stdout.flush()
os._exit(0)  # whatever a side has kept open
