"""Print by how many KiB the resident memory grows over many calls of a row, after some calls to warm up."""

import gc
import os
import sys
from pathlib import Path

from rows import OURS, ROWS


def resident_kib():
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


row = ROWS[sys.argv[1]]
repeat = row.prepare(OURS)
repeat(row.growth // 40)
before = resident_kib()
repeat(row.growth)
print(resident_kib() - before)
