"""Places from which sync code calls: each function calls there what it is given, and returns the result."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import anysync


@anysync.contextmanager
async def opened():
    yield


def plain(call):
    return call()


def in_with(call):
    with opened():
        return call()


def in_loop(call):
    async def main():
        return call()

    return asyncio.run(main())


def nested(call):
    async def main():
        return call()

    return in_loop(lambda: anysync.run(main()))


def nested_in_with(call):
    return nested(lambda: in_with(call))


def in_thread(call):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result(60)


#: Where what one thread made, and another let go of, dies when the first gets to it, and no sooner.
dies_at_once = pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(),
    reason="free-threaded Python counts other threads' references later",
)

everywhere = pytest.mark.parametrize("place", [plain, in_with, in_loop, nested])


def error_of(call):
    """Return what `call` raises."""
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")
