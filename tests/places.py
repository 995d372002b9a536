"""Places from which sync code calls: each function calls there what it is given, and returns the result.

What plain code runs on, and every loop here is of, is the backend that is configured.
"""

from concurrent.futures import ThreadPoolExecutor

import anyio
from scripts import collect_dropped

import anysync
from anysync._process import process


@anysync.contextmanager
async def opened():
    yield


def plain(call):
    return call()


def in_with(call):
    with opened():
        return call()


def in_async_code(function, *args):
    return anyio.run(function, *args, backend=process.backend)


def in_loop(call):
    async def main():
        return call()

    return in_async_code(main)


def inline(call):
    """Inside a coroutine that is driven in this thread."""

    async def main():
        return call()

    return anysync.run(main())


def nested(call):
    """Inside a coroutine on the background thread."""
    return in_loop(lambda: inline(call))


def nested_in_with(call):
    return nested(lambda: in_with(call))


def in_thread(call):
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(call).result(60)
    collect_dropped()
    return result


def error_of(call):
    """Return what `call` raises."""
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")
