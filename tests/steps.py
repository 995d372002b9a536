"""Every step of every object of both worlds, every row of the table it can be made in, and every failure.

A row calls what it is given with an `api`: what makes objects and calls there, by the names of `Runner`.
A step is sync code that ends in `fails()`, an async function of the test's; `bare` is the same in async code.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import anyio
from places import in_loop, in_thread, in_with, nested, plain

import anysync

# rows


class Here:
    """What `Runner` has, for code that has no runner."""

    run = staticmethod(anysync.run)
    enter = staticmethod(anysync.wrap_async_context_manager)

    @staticmethod
    def iterate(iterator):
        is_generator = isinstance(iterator, AsyncGenerator)
        return (anysync.wrap_async_generator if is_generator else anysync.wrap_async_iterator)(iterator)

    @staticmethod
    def submit(coro):
        return anysync.wrap_coroutine(coro).submit()


def runner(call):
    with anysync.Runner() as runner:
        return call(runner)


def runner_in_loop(call):
    return in_loop(lambda: runner(call))


ROWS = {
    place.__name__: lambda call, place=place: place(lambda: call(Here))
    for place in (plain, in_with, in_loop, nested, in_thread)
}
ROWS |= {"runner": runner, "runner_in_loop": runner_in_loop}

# steps


class Thrown(Exception):
    """Thrown into a generator."""


async def fails_first(fails):
    await fails()
    yield


async def fails_later(fails):
    yield
    await fails()
    yield


async def fails_when_thrown_into(fails):
    with suppress(Thrown):
        yield
    await fails()
    yield


async def fails_when_closed(fails):
    try:
        yield
    finally:
        await fails()


class FailingIterator:
    def __init__(self, fails):
        self.fails = fails

    def __aiter__(self):
        return self

    async def __anext__(self):
        await self.fails()


@asynccontextmanager
async def passing():
    try:
        yield
    except BaseException:
        await anyio.sleep(0)
        raise


enters = asynccontextmanager(fails_first)
exits = asynccontextmanager(fails_later)


def run(api, fails):
    api.run(fails())


def result_of_submit(api, fails):
    api.submit(fails()).result(30)


def first_item(api, fails):
    next(api.iterate(fails_first(fails)))


def later_item(api, fails):
    items = api.iterate(fails_later(fails))
    next(items)
    next(items)


def item_of_for(api, fails):
    for _ in api.iterate(fails_later(fails)):
        pass


def item_of_iterator(api, fails):
    items = api.iterate(FailingIterator(fails))
    try:
        for _ in items:
            pass
    finally:  # it goes on after an error
        items.close()


def send(api, fails):
    items = api.iterate(fails_later(fails))
    next(items)
    items.send("value")


def throw(api, fails):
    items = api.iterate(fails_when_thrown_into(fails))
    next(items)
    items.throw(Thrown())


def close(api, fails):
    items = api.iterate(fails_when_closed(fails))
    next(items)
    items.close()


def enter(api, fails):
    with api.enter(enters(fails)):
        pass


def body(api, fails):
    with api.enter(passing()):
        api.run(fails())


def exit_(api, fails):
    with api.enter(exits(fails)):
        pass


class bare:
    async def run(fails):
        await fails()

    async def result_of_submit(fails):
        try:
            await fails()
        except asyncio.CancelledError:  # it makes a cancelled future, as with run_coroutine_threadsafe
            raise CancelledError from None

    async def first_item(fails):
        await anext(fails_first(fails))

    async def later_item(fails):
        items = fails_later(fails)
        await anext(items)
        await anext(items)

    async def item_of_for(fails):
        async for _ in fails_later(fails):
            pass

    async def item_of_iterator(fails):
        async for _ in FailingIterator(fails):
            pass

    async def send(fails):
        items = fails_later(fails)
        await anext(items)
        await items.asend("value")

    async def throw(fails):
        items = fails_when_thrown_into(fails)
        await anext(items)
        await items.athrow(Thrown())

    async def close(fails):
        items = fails_when_closed(fails)
        await anext(items)
        await items.aclose()

    async def enter(fails):
        async with enters(fails):
            pass

    async def body(fails):
        async with passing():
            await fails()

    async def exit_(fails):
        async with exits(fails):
            pass


STEPS = {
    step.__name__: step
    for step in (
        *(run, result_of_submit),
        *(first_item, later_item, item_of_for, item_of_iterator, send, throw, close),
        *(enter, body, exit_),
    )
}

# failures


class Oops(Exception):
    pass


class Stop(BaseException):
    pass


@dataclass(frozen=True)
class Frozen(Exception):
    """Lets nothing be assigned, a traceback for one."""

    message: str


KINDS = {
    "Exception": Oops,
    "frozen Exception": Frozen,
    "BaseException": Stop,
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": SystemExit,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "TimeoutError": TimeoutError,
    "ExceptionGroup": lambda message: ExceptionGroup(message, [Oops()]),
    "BaseExceptionGroup": lambda message: BaseExceptionGroup(message, [KeyboardInterrupt(), Oops()]),
}


async def at_once(error):
    raise error


async def after_a_turn(error):
    await anyio.sleep(0)
    raise error


async def in_a_task(error):
    await asyncio.create_task(at_once(error))


async def in_a_future(error):
    future = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    await future


WAYS = [at_once, after_a_turn, in_a_task, in_a_future]


def outcome(step, error, way):
    try:
        step(lambda: way(error))
    except BaseException as raised:
        seen = raised
    else:
        return "nothing"
    if seen is error:
        return "itself", seen.__cause__
    return type(seen), str(seen), seen.__cause__ is error


# other users of the loop


class Neighbours:
    """On the loop of an `api`: a task left behind, an open generator, and a step of another thread."""

    def __init__(self, api):
        self.api = api
        self.begun = threading.Event()
        self.go = asyncio.Event()
        self.items = [api.iterate(self._items()), api.iterate(self._items())]
        self.loops = [next(items) for items in self.items]
        self.task = api.run(self._leave())
        self.thread = threading.Thread(target=self._step)
        self.thread.start()
        assert self.begun.wait(30)

    async def _items(self):
        yield asyncio.get_running_loop()
        self.begun.set()
        await self.go.wait()
        yield asyncio.get_running_loop()

    async def _leave(self):
        return asyncio.create_task(self.go.wait())

    async def _end(self):
        self.go.set()
        return await self.task

    def _step(self):
        self.loops.append(next(self.items[0]))

    def live_on(self):
        """Let all of them go on; say whether they do, on the loop that they began on."""
        went_on = self.api.run(self._end())
        self.loops.append(next(self.items[1]))
        self.thread.join()
        return (
            went_on
            and [next(items, "ended") for items in self.items] == ["ended"] * 2
            and len(set(self.loops)) == 1
            and len(self.loops) == 4
        )
