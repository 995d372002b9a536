"""Callers that make calls of all kinds at random, and check each: for crowds of threads, and for soaks.

A `Job` goes with each coroutine, iterator and manager, and comes back as its outcome, so that one which
reaches another caller shows, and so does a clean-up that is left out, made twice, or made in another context.
"""

import asyncio
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextvars import ContextVar, copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import anyio
import sniffio
from scripts import collect_dropped

import anysync
from anysync._process import process

for logger in "asyncio", "anysync":  # what fails as it is cancelled is told there
    logging.getLogger(logger).addFilter(lambda record: "future was cancelled" not in record.getMessage())

PATIENCE = 60  # seconds until something that should have come is lost
var: ContextVar[object] = ContextVar("var", default=None)


async def tasks() -> int:
    """Return how many tasks there are on this loop, but for those that count, and timers that have ended."""
    if sniffio.current_async_library() == "asyncio":
        names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]
    else:
        from trio.lowlevel import current_root_task

        root = current_root_task()
        assert root is not None
        names = [task.name for task in root.child_nurseries[1].child_tasks]  # of the nursery of system tasks
    return len([name for name in names if name != "tasks" and not name.endswith(".later")])


class Oops(Exception):
    """What iterators swallow."""


class Stop(BaseException):
    """What no loop knows."""


class Job:
    """One piece of work: how often it was begun and ended, and a place where it can be held."""

    def __init__(self) -> None:
        self.begun = self.ended = 0
        self.saw: object = None
        self.sent: object = None
        self.over = threading.Event()
        self.held = threading.Event()
        self._release: Callable[[], object] | None = None
        self._token: Any = None

    def begin(self) -> None:
        self.begun += 1
        self.saw = var.get()
        self._token = var.set(self)

    def end(self) -> None:
        var.reset(self._token)  # raises in another context than that of `begin`
        assert var.get() is self.saw
        self.ended += 1
        self.over.set()

    async def end_after(self, turns: int) -> None:
        """Clean up, with a second cancel or without."""
        try:
            await turn(turns)
        finally:
            self.end()

    async def hold(self) -> None:
        """Wait for `release`, or for a cancel."""
        event = anyio.Event()
        self._release = partial(call_soon(), event.set)
        self.held.set()
        try:
            await event.wait()
        finally:
            self.held.clear()

    def release(self) -> None:
        assert self._release is not None
        self._release()

    def check_over(self) -> None:
        assert (self.begun, self.ended) == (1, 1), (self.begun, self.ended)


def call_soon() -> Callable[[Callable[[], object]], object]:
    """Return what other threads have the loop that runs here call functions with."""
    if sniffio.current_async_library() == "trio":
        from trio.lowlevel import current_trio_token

        return current_trio_token().run_sync_soon
    return asyncio.get_running_loop().call_soon_threadsafe


async def turn(turns: int) -> None:
    for _ in range(turns):
        await anyio.sleep(0)


@anysync.coroutine
async def work(job: Job, turns: int = 0, error: BaseException | None = None, hold: bool = False) -> Job:
    """Suspend some times, and return the job or raise the error."""
    job.begin()
    try:
        await turn(turns)
        if hold:
            await job.hold()
        if error is not None:
            raise error
        return job
    finally:
        await job.end_after(turns)


@anysync.coroutine
async def stubborn(job: Job) -> Job:
    """Return the job when cancelled."""
    job.begin()
    try:
        await job.hold()
    except anyio.get_cancelled_exc_class():
        pass
    finally:
        job.end()
    return job


@anysync.generator
async def items(job: Job, count: int, turns: int = 0, held_at: int | None = None):
    """Yield the job with a number, `count` times, whatever is sent, and if `Oops` is thrown in."""
    job.begin()
    try:
        for number in range(count):
            await turn(turns)
            if number == held_at:
                await job.hold()
            try:
                job.sent = yield job, number
            except Oops as error:
                # else it would keep this frame, which at its end knows that of whoever turns the loop, whose
                # generator may then outlive its drop
                job.sent = error.with_traceback(None)
    finally:
        await job.end_after(turns)


class Items:
    """An async iterator that is no generator."""

    def __init__(self, job: Job, count: int, turns: int = 0) -> None:
        self.job, self.count, self.turns = job, count, turns
        self.number = 0

    def __aiter__(self) -> "Items":
        return self

    async def __anext__(self) -> tuple[Job, int]:
        if not self.job.begun:
            self.job.begin()
        await turn(self.turns)
        if self.number == self.count:
            await self.aclose()
            raise StopAsyncIteration
        self.number += 1
        return self.job, self.number - 1

    async def aclose(self) -> None:
        self.number = self.count
        if self.job.begun and not self.job.ended:
            await self.job.end_after(self.turns)


@anysync.contextmanager
async def opened(job: Job, turns: int = 0, child: Job | None = None, fail: BaseException | None = None):
    """Give the job to the body, let the child be held meanwhile, and swallow `Oops`."""
    job.begin()
    try:
        async with anyio.create_task_group() as group:
            scope = anyio.CancelScope()
            if child is not None:
                group.start_soon(in_scope, scope, work(child, turns, hold=True))
            await turn(turns)
            if fail is not None:
                raise fail
            try:
                yield job
            except Oops as error:
                job.sent = error
            finally:
                if child is not None:
                    await turn(1)  # a task that is cancelled before it has begun never begins
                    scope.cancel()
    finally:
        await job.end_after(turns)


async def in_scope(scope: anyio.CancelScope, coro: Any) -> None:
    with scope:
        await coro


class Opened:
    """An async context manager that is no function."""

    def __init__(self, job: Job, turns: int = 0) -> None:
        self.job, self.turns = job, turns

    async def __aenter__(self) -> Job:
        self.job.begin()
        await turn(self.turns)
        return self.job

    async def __aexit__(self, typ: object, error: BaseException | None, tb: object) -> bool:
        self.job.sent = error
        await self.job.end_after(self.turns)
        return isinstance(error, Oops)


def what_is_open() -> str:
    """Tell of all that lives on a loop of ours and has not ended, and where each task stands."""
    lines = []
    for host in process.hosts():
        for thing in host.open.copy():
            names = "task", "coro", "result", "current", "ended", "lost", "cancelled", "early", "instead"
            state = {name: getattr(thing, name) for name in names if hasattr(thing, name)}
            task = state["task"]
            stack = [str(frame) for frame in task.get_stack()] if isinstance(task, asyncio.Task) else []
            lines.append(f"{host}, {host.gone}: {thing}, {state}, {stack}")
    return "\n".join(lines)


def error_of(call: Callable[[], object]) -> BaseException | None:
    """Return what the call raises."""
    try:
        call()
    except BaseException as error:
        return error
    return None


class Caller:
    """One who calls at random, wherever `act` is called; many of them share a runner and an exchange."""

    def __init__(
        self, seed: object, runner: anysync.Runner, exchange: "SimpleQueue[Any] | None" = None
    ) -> None:
        self.seed = seed
        self.random = random.Random(repr(seed))
        self.runner = runner
        self.exchange = exchange
        self.made: Counter[str] = Counter()
        self.left: list[Job] = []
        self.depth = 0
        self.on_runner = False

    def act(self) -> None:
        """Make one random call, or some that belong together, and check what comes of it."""
        act = self.random.choice(self.acts)
        self.made[act.__name__] += 1
        before = var.get()
        try:
            act(self)
            assert var.get() is before, "a change of a context variable has come out"
        except Exception as error:
            error.add_note(f"in {act.__name__}, of the caller with the seed {self.seed!r}")
            raise

    async def act_in_loop(self) -> None:
        """Await, and call from sync code, in turns."""
        job = Job()
        assert await work(job, self.turns()) is job
        assert [item async for item in items(Job(), 2)][-1][1] == 1
        self.act()

    def settle(self) -> None:
        """Wait for the end of what was cancelled or dropped, and check it."""
        if self.left:
            collect_dropped()
            for submit in anysync.AnySyncCoroutine.submit, self.runner.submit:
                submit(work(Job())).result(PATIENCE)  # comes after all that was submitted before
        for job in self.left:
            if job.begun:
                assert job.over.wait(PATIENCE), f"a clean-up was lost\n{what_is_open()}"
            assert job.begun == job.ended <= 1
        self.left.clear()

    def turns(self) -> int:
        return self.random.choice((0, 0, 1, 3))

    def error(self) -> BaseException:
        make = self.random.choice(
            (Oops, Stop, KeyboardInterrupt, SystemExit, asyncio.CancelledError, ValueError)
        )
        return ExceptionGroup("both", [ValueError(), Oops()]) if make is ValueError else make()

    def way(self) -> Callable[..., Any]:
        """Return one of the ways to run a coroutine."""
        ways: list[Callable[..., Any]] = [
            anysync.AnySyncCoroutine.run,
            lambda coro, **options: anysync.wrap_coroutine(coro.coro).run(**options),
            anysync.run,
        ]
        if not self.on_runner:
            ways.append(self.runner.run)
        return self.random.choice(ways)

    def call(self) -> None:
        job = Job()
        assert self.way()(work(job, self.turns())) is job
        job.check_over()
        assert job.saw is var.get()

    def call_with_context(self) -> None:
        job, before, context = Job(), object(), copy_context()
        context.run(var.set, before)
        assert self.way()(work(job, self.turns()), context=context) is job
        job.check_over()
        assert job.saw is before is context.run(var.get)

    def call_that_fails(self) -> None:
        job, error = Job(), self.error()
        assert error_of(partial(self.way(), work(job, self.turns(), error))) is error
        job.check_over()

    def call_with_timeout(self) -> None:
        job = Job()
        if self.random.random() < 0.3:
            assert self.way()(work(job, self.turns()), timeout=PATIENCE) is job
        elif self.random.random() < 0.3:
            assert self.way()(stubborn(job), timeout=1e-4) is job
        else:
            run = partial(
                self.way(), work(job, self.turns(), hold=True), timeout=self.random.choice((0, 1e-4, 1e-3))
            )
            assert type(error_of(run)) is TimeoutError
        job.check_over()

    def submit(self) -> None:
        submit = anysync.AnySyncCoroutine.submit
        if not self.on_runner and self.random.random() < 0.5:
            submit = self.runner.submit
        told: list[object] = []
        futures = []
        for _ in range(self.random.randrange(1, 6)):
            job, error = Job(), self.random.choice((None, None, self.error()))
            hold = self.random.random() < 0.3
            future = submit(work(job, self.turns(), error, hold))
            future.add_done_callback(told.append)
            futures.append((future, job, error, hold))
        self.random.shuffle(futures)
        for future, job, error, hold in futures:
            if (hold or self.random.random() < 0.3) and future.cancel():
                self.left.append(job)
                assert type(error_of(partial(future.result, 0))) is CancelledError
                continue
            assert not hold
            if isinstance(error, asyncio.CancelledError):
                assert type(error_of(partial(future.result, PATIENCE))) is CancelledError
            elif error is not None:
                assert future.exception(PATIENCE) is error
            else:
                assert future.result(PATIENCE) is job
            job.check_over()
        told_of = Counter(told)
        for future, *_ in futures:
            if future.done():  # who waits may be woken before the callbacks
                assert told_of[future] <= 1

    def iterate(self) -> None:
        job, count, turns = Job(), self.random.randrange(1, 5), self.turns()
        form = self.random.randrange(3 if self.on_runner else 4)
        make: Callable[..., Any] = (
            lambda: items(job, count, turns),
            lambda: anysync.wrap_async_generator(items.__wrapped__(job, count, turns)),
            lambda: anysync.wrap_async_iterator(Items(job, count, turns)),
            lambda: self.runner.iterate(items.__wrapped__(job, count, turns)),
        )[form]
        stops = self.random.randrange(count + 1)
        thing = make()
        for number, item in enumerate(thing):
            assert item == (job, number)
            if number == stops:
                break
        del item
        if form == 2:
            thing.close()  # who drops one that is no generator leaves what it wraps open
            job.check_over()
        elif stops < count:
            self.left.append(job)
        else:
            job.check_over()

    def step(self) -> None:
        job, turns = Job(), self.turns()
        generator = items(job, 10**9, turns)
        if not self.on_runner and self.random.random() < 0.3:
            generator = self.runner.iterate(items.__wrapped__(job, 10**9, turns))
        assert next(generator) == (job, 0)
        for number in range(1, self.random.randrange(2, 5)):
            if self.random.random() < 0.3:
                value: object = Oops()
                assert generator.throw(value) == (job, number)
            else:
                value = object()
                assert generator.send(value) == (job, number)
            assert job.sent is value
        end = self.random.randrange(4)
        if end == 0:
            generator.close()
            job.check_over()
        elif end == 1:
            error: BaseException = self.random.choice((Stop, KeyError, KeyboardInterrupt))()
            assert error_of(partial(generator.throw, error)) is error
            job.check_over()
        elif end == 2 and not self.depth and self.exchange is not None and self.exchange.qsize() < 20:
            self.exchange.put(generator)
        else:
            self.left.append(job)
        del generator

    def enter(self) -> None:
        job, child, turns = Job(), Job(), self.turns()
        error = self.random.choice((None, None, Oops(), KeyError(), Stop()))
        form = self.random.randrange(2 if self.on_runner else 3)
        manager: Any = (
            lambda: opened(job, turns, child),
            lambda: anysync.wrap_async_context_manager(Opened(job, turns)),
            lambda: self.runner.enter(opened(job, turns, child)),
        )[form]()

        def body() -> None:
            with manager as entered:
                assert entered is job
                if self.depth < 2:
                    self.deeper()
                if error is not None:
                    raise error

        raised = error_of(body)
        if form != 1 and isinstance(error, KeyError | Stop) and isinstance(raised, BaseExceptionGroup):
            raised = raised.exceptions[0]  # made by the task group
        assert raised is (None if isinstance(error, Oops) else error), repr(raised)
        job.check_over()
        if form != 1:
            child.check_over()

    def enter_in_vain(self) -> None:
        job, error = Job(), KeyError()
        raised = error_of(opened(job, self.turns(), fail=error).__enter__)
        assert isinstance(raised, ExceptionGroup)
        assert raised.exceptions == (error,)
        job.check_over()

    def nest(self) -> None:
        """Call from sync code in a coroutine that we run."""
        if self.depth == 2:
            return
        on_runner, run = self.on_runner, anysync.run
        if not on_runner and self.random.random() < 0.3:
            run, self.on_runner = self.runner.run, True

        async def inner() -> None:
            self.deeper()
            await turn(1)
            self.deeper()

        try:
            run(inner())
        finally:
            self.on_runner = on_runner

    def deeper(self) -> None:
        self.depth += 1
        try:
            self.act()
        finally:
            self.depth -= 1

    def own_runner(self) -> None:
        """Make a runner, and close it with things open on it."""
        works, waits, walks, enters, child = Job(), Job(), Job(), Job(), Job()
        runner = anysync.Runner("a caller's own")
        assert runner.run(work(works, 1)) is works
        future = runner.submit(work(waits, hold=True))
        generator = runner.iterate(items(walks, 100))
        assert next(generator) == (walks, 0)
        manager = runner.enter(opened(enters, 1, child))
        assert manager.__enter__() is enters
        runner.close()
        assert isinstance(future.exception(0), RuntimeError)
        for job in works, waits, walks, enters, child:
            job.check_over()
        unused = Job()
        uses = (
            lambda: runner.run(work(unused)),
            lambda: runner.submit(work(unused)),
            lambda: next(generator),
            lambda: manager.__exit__(None, None, None),
        )
        for use in uses:
            assert isinstance(error_of(use), RuntimeError)
        assert not unused.begun

    def short_thread(self) -> None:
        """Call in a thread that ends, unless it would call into a loop that waits for it."""
        if self.depth:
            return
        caller = Caller((self.seed, self.random.random()), self.runner)
        caller.depth = 1
        errors: list[BaseException | None] = []

        def call() -> None:
            errors.append(error_of(caller.act))
            errors.append(error_of(caller.settle))

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        self.made.update(caller.made)
        for error in errors:
            if error is not None:
                raise error

    def take_over(self) -> None:
        """Go on with a generator that another caller began."""
        if self.exchange is None or self.depth:
            return
        try:
            generator = self.exchange.get_nowait()
        except Empty:
            return
        job, _ = next(generator)
        if self.random.random() < 0.5:
            self.exchange.put(generator)
        else:
            generator.close()
            job.check_over()

    acts = (
        *(call, call_with_context, call_that_fails, call_with_timeout, submit, iterate, step, enter) * 3,
        *(enter_in_vain, nest, own_runner, short_thread, take_over),
    )
