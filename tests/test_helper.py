"""Which thread turns the loop: the caller during a step, the helper between steps, a runner's own."""

import asyncio
import gc
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import anyio
import pytest
from loops import CANCELS, current_task, enter_either, leave_behind, own_timeout, post, shielded, this_loop
from places import in_loop, plain
from pytest_marks import on_asyncio, on_both
from scripts import PYPY, collect_dropped, threads_since
from worlds import both_worlds

from anysync import AnySyncContextManager, Runner, contextmanager, coroutine, generator, run
from anysync._hosts import here

pytestmark = on_both
WATCHDOG = 20
var: ContextVar[str] = ContextVar("var", default="unset")


class Worker:
    """One thread that does what it is told, and so a thread with a loop of its own."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self.ident: int = self(threading.get_ident)

    def start(self, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        return self._pool.submit(function, *args)

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.start(function, *args).result(WATCHDOG)

    def end(self) -> None:
        self._pool.shutdown()
        collect_dropped()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.end()


@pytest.fixture
def other() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.end()


def in_new_thread(test: Callable[[], None]) -> Callable[[], None]:
    """Run a test in a thread that has no loop and no helper yet."""

    @wraps(test)
    def in_thread() -> None:
        worker = Worker()
        try:
            worker(test)
        finally:
            worker.end()

    return in_thread


class Helpers:
    """The helper threads that were started since."""

    def __init__(self) -> None:
        self._before = self._all()

    def _all(self) -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "anysync helper"}

    def __call__(self) -> set[threading.Thread]:
        return self._all() - self._before


class Step:
    """A step that says when it has begun, and waits on the loop until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()

    @generator
    async def items(self) -> AsyncGenerator[int, None]:
        go_on = anyio.Event()
        self.let_go = partial(post, this_loop(), go_on.set)
        yield threading.get_ident()
        self.begun.set()
        await go_on.wait()
        yield threading.get_ident()


@generator
async def count() -> AsyncGenerator[int, None]:
    for n in range(100):
        yield n


@generator
async def idents() -> AsyncGenerator[int, None]:
    """Yield the thread of each step; fail if they are not one task's."""
    task = current_task()
    while True:
        await anyio.sleep(0)
        assert current_task() is task
        yield threading.get_ident()


@contextmanager
async def beating() -> AsyncGenerator[Callable[[], set[int]], None]:
    """A heart-beat; what it yields waits for two beats more, and says which threads they came from."""
    beat = threading.Semaphore(0)
    came_from: set[int] = set()

    async def beats() -> None:
        while True:
            await anyio.sleep(0.0005)
            came_from.add(threading.get_ident())
            beat.release()

    def wait() -> set[int]:
        while beat.acquire(blocking=False):
            pass
        came_from.clear()
        for _ in range(2):
            assert beat.acquire(timeout=WATCHDOG)
        return set(came_from)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beats)
        yield wait
        tasks.cancel_scope.cancel()


@contextmanager
async def nothing_to_turn(suspend: bool = True) -> AsyncGenerator[None, None]:
    if suspend:
        await anyio.sleep(0)
    yield


@coroutine
async def ident() -> int:
    await anyio.sleep(0)
    return threading.get_ident()


@coroutine
async def thread_name() -> str:
    await anyio.sleep(0)
    return threading.current_thread().name


# the helper


@on_asyncio  # of trio that is not known
@pytest.mark.parametrize("suspend", [False, True])
def test_no_helper_where_there_is_nothing_to_turn(suspend: bool, worker: Worker) -> None:
    def use() -> None:
        with nothing_to_turn(suspend):
            assert ident().run() == threading.get_ident()
            assert not helpers()
        for n in count():
            assert not helpers()
            if n == 3:
                break
        assert not helpers()

    helpers = Helpers()
    worker(use)


@in_new_thread
def test_no_helper_for_a_task_that_is_left_behind() -> None:
    @coroutine
    async def leave() -> object:
        return leave_behind(partial(anyio.sleep, 3600))

    helpers, _ = Helpers(), leave().run()
    assert ident().run() == threading.get_ident()
    assert not helpers()


@in_new_thread
def test_one_helper_turns_the_loop_in_every_with() -> None:
    helpers = Helpers()
    seen = set()
    for _ in range(20):
        with beating() as wait:
            came_from = wait()
            (helper,) = helpers()
            assert came_from == {helper.ident}
            seen.add(helper)
    assert seen == helpers()
    assert len(seen) == 1


@in_new_thread
def test_each_loop_has_a_helper_of_its_own() -> None:
    def use() -> set[int]:
        with beating() as wait:
            came_from = wait()
            inside.wait(WATCHDOG)
            assert len(helpers()) == 2
            inside.wait(WATCHDOG)
            return came_from

    helpers, inside = Helpers(), threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: use(), range(2))
    assert len(first) == len(second) == 1
    assert first != second


@in_new_thread
def test_every_step_runs_on_the_caller_while_the_helper_runs_in_between() -> None:
    caller = threading.get_ident()
    with beating() as wait:
        for n, step in enumerate(idents()):
            assert step == caller
            assert ident().run() == caller
            assert caller not in wait()
            if n == 20:
                break


@in_new_thread
def test_the_caller_takes_the_loop_back_from_a_helper_that_waits_for_long() -> None:
    @contextmanager
    async def far_timer() -> AsyncGenerator[None, None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 3600)
            yield
            tasks.cancel_scope.cancel()

    helpers = Helpers()
    with far_timer():
        assert len(helpers()) == 1
        for _ in range(100):
            assert ident().run() == threading.get_ident()


@in_new_thread
def test_a_submitted_coroutine_goes_on_while_the_caller_waits() -> None:
    @coroutine
    async def work() -> str:
        for _ in range(3):
            await anyio.sleep(0.001)
        worked.set()
        return threading.current_thread().name

    worked = threading.Event()
    future = work().submit()
    assert worked.wait(WATCHDOG)
    assert future.result(WATCHDOG) == "anysync helper"


@in_new_thread
def test_a_submitted_coroutine_is_done_in_a_call_that_the_caller_makes_meanwhile() -> None:
    @coroutine
    async def wait_for_it() -> None:
        loop, done = this_loop(), anyio.Event()
        future.add_done_callback(lambda _: post(loop, done.set))
        await done.wait()

    future = ident().submit()
    wait_for_it().run()
    assert future.done()


@in_new_thread
def test_once_nothing_is_open_the_loop_stands_still_until_the_next_call() -> None:
    @contextmanager
    async def looking() -> AsyncGenerator[object, None]:
        yield this_loop()

    served = threading.Event()
    with beating() as wait, looking() as loop:
        wait()
    post(loop, served.set)
    assert not served.wait(0.05)
    ident().run()
    assert served.is_set()


def test_the_helper_ends_with_the_thread_that_it_helps() -> None:
    def use() -> set[threading.Thread]:
        with beating() as wait:
            wait()
            return helpers()

    helpers, worker = Helpers(), Worker()
    (helper,) = worker(use)
    worker.end()
    helper.join(WATCHDOG)  # it has a few lines of `threading` left when its loop is closed
    assert not helper.is_alive()


def test_inside_a_loop_the_background_thread_turns_and_nobody_helps(worker: Worker) -> None:
    def use() -> None:
        with beating() as wait:
            assert wait() == {run(ident())} != {worker.ident}

    helpers = Helpers()
    worker(in_loop, use)
    assert not helpers()


# objects that change threads


@pytest.mark.parametrize("manager", [beating, nothing_to_turn])
def test_entered_in_one_thread_and_exited_in_another(manager: Any, worker: Worker, other: Worker) -> None:
    cm = manager()
    worker(cm.__enter__)
    assert not other(cm.__exit__, None, None, None)
    with pytest.raises(RuntimeError, match="not entered"):
        worker(cm.__exit__, None, None, None)


def test_enter_and_exit_run_in_one_task_on_the_thread_that_calls(worker: Worker, other: Worker) -> None:
    @contextmanager
    async def watched() -> AsyncGenerator[None, None]:
        seen.append((current_task(), threading.get_ident()))
        async with enter_either(own_timeout(60)):
            yield
        seen.append((current_task(), threading.get_ident()))

    seen: list[Any] = []
    cm = watched()
    worker(cm.__enter__)
    other(cm.__exit__, None, None, None)
    (task, entered_in), (same_task, exited_in) = seen
    assert task is same_task
    assert (entered_in, exited_in) == (worker.ident, other.ident)


def test_a_generator_is_stepped_from_several_threads_in_turn(worker: Worker, other: Worker) -> None:
    it = idents()
    for _ in range(10):
        assert worker(next, it) == worker.ident
        assert other(next, it) == other.ident
        assert next(it) == threading.get_ident()
    other(it.close)


def test_a_step_in_a_thread_where_another_loop_runs_is_made_by_the_helper(worker: Worker) -> None:
    helpers = Helpers()
    it = idents()
    assert worker(next, it) == worker.ident
    assert in_loop(partial(next, it)) in {helper.ident for helper in helpers()}
    assert worker(next, it) == worker.ident
    in_loop(it.close)


def test_a_background_generator_is_stepped_from_plain_code() -> None:
    it = idents()
    background = in_loop(partial(next, it))
    assert next(it) == background != threading.get_ident()
    it.close()


def test_a_call_of_the_owner_is_served_during_a_step_of_another_thread(worker: Worker, other: Worker) -> None:
    @generator
    async def received() -> AsyncGenerator[str, None]:
        yield "ready"
        waiting.set()
        await put.wait()
        yield "item"

    async def put_it() -> int:
        put.set()
        return threading.get_ident()

    put, waiting = anyio.Event(), threading.Event()
    it = received()
    worker(next, it)
    step = other.start(next, it)
    assert waiting.wait(WATCHDOG)
    assert worker(run, put_it()) == other.ident  # who drives serves
    assert step.result(WATCHDOG) == "item"
    worker(it.close)


def test_a_step_of_another_thread_is_served_during_one_of_the_owner(worker: Worker, other: Worker) -> None:
    step, it = Step(), idents()
    long = step.items()
    worker(next, long)
    worker(next, it)
    owners_step = worker.start(next, long)
    assert step.begun.wait(WATCHDOG)
    assert other(next, it) == worker.ident
    step.let_go()
    assert owners_step.result(WATCHDOG) == worker.ident
    worker(long.close)
    worker(it.close)


@pytest.mark.parametrize("owner_first", [False, True])
def test_two_steps_that_wait_end_in_either_order(owner_first: bool, worker: Worker, other: Worker) -> None:
    steps = Step(), Step()
    iterators = [step.items() for step in steps]
    waiting = []
    for it in iterators:
        worker(next, it)
    for thread, it, step in zip((worker, other), iterators, steps, strict=True):
        waiting.append(thread.start(next, it))
        assert step.begun.wait(WATCHDOG)
    for i in (0, 1) if owner_first else (1, 0):
        steps[i].let_go()
        assert waiting[i].result(WATCHDOG) in (worker.ident, other.ident)
    for it in iterators:
        worker(it.close)


def test_many_threads_step_generators_of_one_loop_at_once(worker: Worker) -> None:
    @generator
    async def numbers() -> AsyncGenerator[int, None]:
        for n in range(200):
            if n % 3:
                await anyio.sleep(0 if n % 7 else 0.0001)
            yield n

    def rest(it: Iterator[int]) -> list[int]:
        together.wait(WATCHDOG)
        return list(it)

    together = threading.Barrier(6)
    iterators = [numbers() for _ in range(6)]
    for it in iterators:
        assert worker(next, it) == 0
    owners = worker.start(rest, iterators[0])
    with ThreadPoolExecutor(5) as pool:
        others = [*pool.map(rest, iterators[1:])]
    assert [owners.result(WATCHDOG), *others] == [[*range(1, 200)]] * 6


@both_worlds
@pytest.mark.parametrize("intrude", [next, lambda it: it.send(None), lambda it: it.close()])
def test_a_step_during_a_step_is_an_error(intrude: Callable[[Any], Any], worker: Worker) -> None:
    step = Step()
    it = step.items()
    next(it)
    going = worker.start(next, it)
    assert step.begun.wait(WATCHDOG)
    with pytest.raises(RuntimeError, match="already running"):
        intrude(it)
    step.let_go()
    assert going.result(WATCHDOG)
    it.close()


@both_worlds
def test_a_step_on_the_loop_of_the_object_is_an_error(worker: Worker) -> None:
    async def step() -> None:
        next(it)

    it = idents()
    next(it)
    with pytest.raises(RuntimeError, match="wait for itself"):
        run(step())
    next(it)
    it.close()


@both_worlds
def test_exit_on_the_loop_of_the_object_is_an_error() -> None:
    async def leave() -> None:
        cm.__exit__(None, None, None)

    cm = nothing_to_turn()
    with cm, pytest.raises(RuntimeError, match="wait for itself"):
        run(leave())


@pytest.mark.parametrize(
    ("make", "begin", "step"),
    [
        (idents, next, next),
        (idents, next, lambda it: it.throw(ValueError())),
        (idents, next, lambda it: it.close()),
        (nothing_to_turn, lambda cm: cm.__enter__(), lambda cm: cm.__exit__(None, None, None)),
    ],
    ids=["next", "throw", "close", "exit"],
)
@pytest.mark.parametrize("world", [plain, in_loop])
def test_after_its_thread_has_ended_an_object_raises(make: Any, begin: Any, step: Any, world: Any) -> None:
    worker, thing = Worker(), make()
    worker(begin, thing)
    worker.end()
    with pytest.raises(RuntimeError, match="has ended"):
        world(partial(step, thing))


def test_what_outlives_its_thread_is_collected_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    worker, things = Worker(), [idents(), nothing_to_turn()]
    worker(next, things[0])
    worker(things[1].__enter__)
    worker.end()
    things.clear()
    gc.collect()
    assert not caplog.records


def test_where_no_helper_can_start_no_step_is_lost_and_the_log_says_what_waits(
    worker: Worker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    @generator
    async def with_background() -> AsyncGenerator[str, None]:
        beaten = anyio.Event()

        async def beat() -> None:
            await anyio.sleep(0)
            beaten.set()

        async with anyio.create_task_group() as group:
            group.start_soon(beat)
            yield "first"
            await beaten.wait()
            yield "second"

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert worker(list, with_background()) == ["first", "second"]
    (message,) = {record.getMessage() for record in caplog.records if record.name == "anysync"}
    assert message.endswith("can't start new thread")


def use_the_helper() -> None:
    with beating() as wait:
        wait()


def use_the_executor() -> None:
    run(asyncio.to_thread(int), backend="asyncio")


@pytest.mark.parametrize("use", [use_the_helper, use_the_executor])
def test_a_thread_that_has_ended_leaves_no_thread_behind(use: Callable[[], None]) -> None:
    before, worker = threading.enumerate(), Worker()
    worker(use)
    worker.end()
    assert threads_since(before) == []


def test_what_is_open_is_closed_in_its_own_task_when_its_thread_ends() -> None:
    @generator
    async def items() -> AsyncGenerator[None, None]:
        task = current_task()
        try:
            yield
        finally:
            await anyio.sleep(0)
            ended.append(current_task() is task)

    @contextmanager
    async def managed() -> AsyncGenerator[None, None]:
        task = current_task()
        try:
            yield
        finally:
            await anyio.sleep(0)
            ended.append(current_task() is task)

    ended: list[bool] = []
    worker, it, cm = Worker(), items(), managed()
    worker(next, it)
    worker(cm.__enter__)
    worker.end()
    assert ended == [True, True]


# a runner: a loop on a thread of its own


def runner_threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_a_runner_starts_with_its_first_use_and_ends_with_close() -> None:
    runner = Runner("lazy")
    assert not runner_threads("lazy")
    assert runner.run(thread_name()) == "lazy"
    assert len(runner_threads("lazy")) == 1
    runner.close()
    assert not runner_threads("lazy")


@pytest.mark.parametrize(
    "use",
    [
        lambda runner: runner.__enter__(),
        lambda runner: runner.submit(ident()).result(WATCHDOG),
        lambda runner: next(runner.iterate(count())),
        lambda runner: runner.enter(nothing_to_turn()).__enter__(),
    ],
    ids=["with", "submit", "iterate", "enter"],
)
def test_every_first_use_starts_it(use: Callable[[Runner], Any]) -> None:
    runner = Runner("lazy")
    use(runner)
    assert len(runner_threads("lazy")) == 1
    runner.close()
    assert not runner_threads("lazy")


@both_worlds
def test_everything_runs_on_the_thread_of_the_runner() -> None:
    @asynccontextmanager
    async def named() -> AsyncGenerator[str, None]:
        await anyio.sleep(0)
        yield threading.current_thread().name

    async def names() -> AsyncGenerator[str, None]:
        await anyio.sleep(0)
        yield threading.current_thread().name

    with Runner("mine") as runner:
        assert runner.run(thread_name()) == "mine"
        assert runner.submit(thread_name()).result(WATCHDOG) == "mine"
        assert [*runner.iterate(names())] == ["mine"]
        with runner.enter(named()) as name:
            assert name == "mine"
    assert not runner_threads("mine")


@both_worlds
@on_asyncio
def test_loop_is_the_loop_of_every_call() -> None:
    async def look() -> object:
        return this_loop()

    runner = Runner("lazy")
    loop = runner.loop
    assert len(runner_threads("lazy")) == 1
    with runner:
        assert runner.run(look()) is runner.run(look()) is loop is runner.loop
        served = threading.Event()
        runner.loop.call_soon_threadsafe(served.set)
        assert served.wait(WATCHDOG)


@both_worlds
def test_run_of_a_runner_takes_a_timeout_and_a_context() -> None:
    async def change() -> None:
        var.set("inside")

    context = copy_context()
    with Runner() as runner:
        runner.run(change(), context=context)
        assert context[var] == "inside"
        with pytest.raises(TimeoutError):
            runner.run(anyio.Event().wait(), timeout=0.001)
        runner.submit(change(), context=(other := copy_context())).result(WATCHDOG)
        assert other[var] == "inside"
    assert var.get() == "unset"


@both_worlds
def test_a_runner_may_be_one_that_has_no_hash() -> None:
    @dataclass
    class Client(Runner):
        name: str = "a client's"

        def __post_init__(self) -> None:
            super().__init__(self.name)

    with Client() as client:
        assert client.run(thread_name()) == "a client's"


@both_worlds
@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), SystemExit(1)], ids=repr)
def test_a_runner_outlives_the_errors_of_its_calls(error: BaseException) -> None:
    async def fail() -> None:
        raise error

    with Runner() as runner:
        thread = runner.run(ident())
        with pytest.raises(type(error)) as caught:
            runner.run(fail())
        assert caught.value is error
        with pytest.raises(type(error)) as caught:
            runner.submit(fail()).result(WATCHDOG)
        assert caught.value is error
        assert runner.run(ident()) == thread


@both_worlds
def test_cancelling_the_future_of_submit_cancels_the_coroutine() -> None:
    async def wait() -> None:
        begun.set()
        try:
            await anyio.Event().wait()
        finally:
            ended.set()

    begun, ended = threading.Event(), threading.Event()
    with Runner() as runner:
        future = runner.submit(wait())
        assert begun.wait(WATCHDOG)
        assert future.cancel()
        assert ended.wait(WATCHDOG)


@both_worlds
def test_a_runner_iterates_generators_and_iterators() -> None:
    async def echo() -> AsyncGenerator[str, str]:
        sent = "ready"
        while True:
            sent = yield sent

    class Three:
        left = 3

        def __aiter__(self) -> AsyncIterator[int]:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    with Runner() as runner:
        it = runner.iterate(echo())
        assert next(it) == "ready"
        assert it.send("a") == "a"
        it.close()
        assert [*runner.iterate(Three())] == [2, 1, 0]
        assert [*runner.iterate(count())] == [*range(100)]


@both_worlds
def test_a_runner_does_not_take_over_what_lives_on_another_loop() -> None:
    it = idents()
    next(it)
    with Runner() as runner, pytest.raises(RuntimeError, match="another loop"):
        runner.iterate(it)
    it.close()


def test_a_runner_serves_many_threads_at_once() -> None:
    async def meet() -> int:
        nonlocal here
        here += 1
        if here == 8:
            met.set()
        await met.wait()
        return threading.get_ident()

    here, met = 0, anyio.Event()
    with Runner() as runner, ThreadPoolExecutor(8) as pool:
        idents = {*pool.map(lambda _: runner.run(meet()), range(8))}
    assert len(idents) == 1


def test_many_threads_start_one_runner() -> None:
    def first_use() -> str:
        together.wait(WATCHDOG)
        return runner.run(thread_name())

    together = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        runner = Runner("once")
        names = {*pool.map(lambda _: first_use(), range(8))}
        assert names == {"once"}
        assert len(runner_threads("once")) == 1
        runner.close()


@both_worlds
def test_two_runners_have_two_loops() -> None:
    async def look() -> object:
        return this_loop()

    with Runner() as first, Runner() as second:
        assert first.run(look()) is not second.run(look())
        assert first.run(ident()) != second.run(ident())


def test_closed_twice_and_closed_unused() -> None:
    runner = Runner()
    runner.close()
    runner.close()
    with Runner() as used:
        used.run(ident())
        used.close()


@both_worlds
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(
    "use",
    [
        lambda runner: runner.run(ident()),
        lambda runner: runner.submit(ident()),
        lambda runner: next(runner.iterate(count())),
        lambda runner: runner.enter(nothing_to_turn()).__enter__(),
        lambda runner: runner.loop,
        lambda runner: runner.__enter__(),
    ],
    ids=["run", "submit", "iterate", "enter", "loop", "with"],
)
def test_every_use_after_close_is_an_error(use: Callable[[Runner], Any], started: bool) -> None:
    runner = Runner()
    if started:
        runner.run(ident())
    runner.close()
    with pytest.raises(RuntimeError, match="has been closed"):
        use(runner)


class Waiting:
    """A coroutine that waits for ever, and says when it has begun and when its clean-up is through."""

    def __init__(self) -> None:
        self.begun, self.cleaned = threading.Event(), threading.Event()

    async def __call__(self) -> None:
        self.begun.set()
        try:
            await anyio.Event().wait()
        finally:
            await shielded(anyio.sleep, 0)
            self.cleaned.set()

    async def items(self) -> AsyncGenerator[None, None]:
        yield
        await self()

    def __aiter__(self) -> AsyncIterator[None]:
        return self

    __anext__ = __call__

    @asynccontextmanager
    async def manager(self) -> AsyncGenerator[None, None]:
        await self()
        yield


@both_worlds
@pytest.mark.parametrize(
    "call",
    [
        lambda runner, waiting: runner.run(waiting()),
        lambda runner, waiting: runner.submit(waiting()).result(WATCHDOG),
        lambda runner, waiting: [*runner.iterate(waiting.items())],
        lambda runner, waiting: [*runner.iterate(waiting)],
        lambda runner, waiting: runner.enter(waiting.manager()).__enter__(),
    ],
    ids=["run", "submit", "generator", "iterator", "enter"],
)
def test_close_cleans_up_the_calls_under_way_which_then_raise(call: Any, worker: Worker) -> None:
    runner, waiting = Runner(), Waiting()
    going = worker.start(call, runner, waiting)
    assert waiting.begun.wait(WATCHDOG)
    runner.close()
    assert waiting.cleaned.is_set()
    with pytest.raises(RuntimeError, match="has been closed"):
        going.result(WATCHDOG)


@both_worlds
@pytest.mark.parametrize(
    "call",
    [
        lambda runner, items: next(runner.iterate(items)),
        lambda runner, items: runner.enter(asynccontextmanager(lambda: items)()).__enter__(),
    ],
    ids=["iterate", "enter"],
)
def test_close_ends_what_swallows_its_cancel(call: Any, worker: Worker) -> None:
    async def items() -> AsyncGenerator[str, None]:
        with suppress(*CANCELS):
            await waiting()
        try:
            yield "swallowed"
        finally:
            await shielded(anyio.sleep, 0)
            ended.set()

    runner, waiting, ended = Runner(), Waiting(), threading.Event()
    going = worker.start(call, runner, items())
    assert waiting.begun.wait(WATCHDOG)
    runner.close()
    assert ended.is_set()
    with suppress(RuntimeError):
        assert going.result(WATCHDOG) == "swallowed"


def test_calls_that_race_with_close_run_or_raise() -> None:
    def call() -> None:
        together.wait(WATCHDOG)
        with suppress(RuntimeError):
            while True:
                runner.run(ident(), timeout=WATCHDOG)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            runner, together = Runner(), threading.Barrier(5)
            calls = [pool.submit(call) for _ in range(4)]
            together.wait(WATCHDOG)
            runner.run(ident())
            runner.close()
            for going in calls:
                going.result(WATCHDOG)


@both_worlds
def test_close_runs_the_clean_up_of_what_is_open_in_its_own_task() -> None:
    async def items() -> AsyncGenerator[None, None]:
        task = current_task()
        try:
            yield
        finally:
            await anyio.sleep(0)
            ended.append(current_task() is task)

    ended: list[bool] = []
    runner = Runner()
    it, cm = runner.iterate(items()), runner.enter(asynccontextmanager(items)())
    next(it)
    cm.__enter__()
    runner.close()
    assert ended == [True, True]
    for step in partial(next, it), it.close, partial(cm.__exit__, None, None, None):
        with pytest.raises(RuntimeError, match="has been closed"):
            step()


@both_worlds
def test_close_cancels_the_tasks_that_are_left() -> None:
    async def leave() -> object:
        return leave_behind(waiting)

    waiting = Waiting()
    with Runner() as runner:
        _ = runner.run(leave())
        assert waiting.begun.wait(WATCHDOG)
    assert waiting.cleaned.is_set()


@both_worlds
@pytest.mark.parametrize(
    "call",
    [
        lambda runner: runner.run(ident()),
        lambda runner: next(runner.iterate(count())),
        lambda runner: runner.enter(nothing_to_turn()).__enter__(),
    ],
    ids=["run", "iterate", "enter"],
)
def test_a_call_on_the_thread_of_the_runner_is_an_error(call: Callable[[Runner], Any]) -> None:
    async def inside() -> None:
        call(runner)

    with Runner() as runner:
        with pytest.raises(RuntimeError, match="wait for itself"):
            runner.run(inside())
        assert runner.run(thread_name()) == runner.name


@both_worlds
def test_sync_code_on_the_thread_of_a_runner_runs_async_code_elsewhere() -> None:
    async def inside() -> str:
        return thread_name().run()

    with Runner("outer") as runner:
        assert runner.run(inside()) == "anysync nested"


@both_worlds
def test_the_future_of_a_cancelled_coroutine_says_so() -> None:
    with Runner() as runner:
        future = runner.submit(anyio.Event().wait())
        assert future.cancel()
        with pytest.raises(CancelledError):
            future.result(WATCHDOG)


def test_who_waits_for_a_loop_that_closes_is_told() -> None:
    @generator
    async def items() -> AsyncGenerator[int, None]:
        while True:
            yield 1

    def own() -> None:
        host: Any = here()
        host.wake = host.loop.on_wake = lambda: None  # the helper stays out of it
        next(shared)
        assert third.submit(host.try_to_drive).result()
        other.start()
        while not host.followers:
            waiting.wait(0.001)
        assert third.submit(host.hand_to, threading.get_ident()).result()  # and this one ends
        if PYPY:  # where that is seen later, in another thread
            host.close(at_thread_end=True)

    def follow() -> None:
        try:
            next(shared)
        except RuntimeError as error:
            told.append(str(error))

    shared: Any = items()
    told: list[str] = []
    waiting = threading.Event()
    other = threading.Thread(target=follow)
    owner = threading.Thread(target=own)
    with ThreadPoolExecutor(1) as third:
        owner.start()
        owner.join(WATCHDOG)
        other.join(WATCHDOG)
    assert not other.is_alive()
    assert len(told) == 1
    assert "has ended" in told[0]


@on_asyncio
@pytest.mark.parametrize("use_uvloop", [False, True])
def test_a_runner_closes_in_peace_when_a_task_breaks_off_its_loop_just_then(use_uvloop: bool) -> None:
    async def leave() -> None:
        async def exit_now() -> None:
            raise SystemExit

        asyncio.get_running_loop().call_soon(runner._host._stop, "closed")  # type: ignore[union-attr]
        task = asyncio.ensure_future(exit_now())
        task.add_done_callback(lambda task: task.exception())
        try:
            await anyio.sleep(WATCHDOG)
        finally:
            await anyio.sleep(0)
            cleaned.set()

    if use_uvloop:
        pytest.importorskip("uvloop")
    cleaned = threading.Event()
    runner = Runner(backend_options={"use_uvloop": use_uvloop})
    with pytest.raises(RuntimeError, match="closed"):
        runner.run(leave())
    runner.close()
    assert cleaned.is_set()


@on_asyncio
def test_a_runner_that_is_closed_while_it_starts_ends() -> None:
    def slow_factory() -> asyncio.AbstractEventLoop:
        starting.set()
        assert go_on.wait(WATCHDOG)
        return asyncio.SelectorEventLoop()

    def call() -> None:
        with suppress(RuntimeError):
            runner.run(asyncio.sleep(0))

    def close() -> None:
        closing.set()
        runner.close()

    starting, closing, go_on = threading.Event(), threading.Event(), threading.Event()
    runner = Runner(name="closed at once", backend_options={"loop_factory": slow_factory})
    caller, closer = threading.Thread(target=call), threading.Thread(target=close)
    caller.start()
    assert starting.wait(WATCHDOG)
    closer.start()
    assert closing.wait(WATCHDOG)
    go_on.set()
    closer.join(WATCHDOG)
    caller.join(WATCHDOG)
    assert "closed at once" not in {thread.name for thread in threading.enumerate()}


def test_a_runner_leaves_a_manager_as_it_was() -> None:
    manager = Reusable()
    with Runner() as runner, runner.enter(manager) as ident:
        assert ident != threading.get_ident()
    with manager as ident:
        assert ident == threading.get_ident()


class Reusable(AnySyncContextManager[int]):
    async def __aenter__(self) -> int:
        return threading.get_ident()

    async def __aexit__(self, *_: object) -> None: ...
