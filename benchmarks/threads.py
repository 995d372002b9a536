"""Print how many calls a second a number of threads make together, as a multiple of what one makes."""

import sys
from statistics import median
from threading import Barrier, Thread
from time import perf_counter

from rows import nothing

from anysync import coroutine

CALLS = 96_000
call = coroutine(nothing)


def calls_a_second(threads):
    """Let threads share the calls, all in plain sync code; their loops are made before, and closed after."""
    barrier, starts, ends = Barrier(threads), [], []

    def work():
        call().run()
        barrier.wait()
        starts.append(perf_counter())
        for _ in range(CALLS // threads):
            call().run()
        ends.append(perf_counter())
        barrier.wait()

    workers = [Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return CALLS / (max(ends) - min(starts))


many, one = zip(*((calls_a_second(int(sys.argv[1])), calls_a_second(1)) for _ in range(5)), strict=True)
print(median(many) / median(one))
