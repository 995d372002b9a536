"""A running mean that is sent its numbers, and a sync generator that passes them on to it."""

from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import closing
from itertools import islice
from typing import assert_type

from anysync import generator


@generator
async def running_mean(start: float = 0) -> AsyncGenerator[float, float]:
    total, count = start, 1
    while True:
        total += yield total / count
        count += 1


@generator
async def pages(*sizes: int) -> AsyncGenerator[list[int]]:
    for size in sizes:
        yield list(range(size))


def passed_on() -> Generator[float, float, None]:
    yield from running_mean(start=2)


def means(numbers: Iterable[float]) -> list[float]:
    with closing(passed_on()) as mean:
        return [next(mean), *(assert_type(mean.send(number), float) for number in numbers)]


assert means([4, 6]) == [2, 3, 4]
assert assert_type([item for page in pages(2, 3) for item in page], list[int]) == [0, 1, 0, 1, 2]
for first, second in zip(islice(pages(1, 2), 1), running_mean(), strict=False):
    assert (assert_type(first, list[int]), assert_type(second, float)) == ([0], 0)
