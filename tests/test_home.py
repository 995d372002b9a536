"""Sync code in a worker thread that a loop of anyio's waits for runs its coroutines on that loop."""

import asyncio
import gc
import sys
import threading
import traceback
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from contextlib import suppress
from contextvars import ContextVar, copy_context
from functools import partial
from types import ModuleType

import anyio
import pytest
import sniffio
from anyio import from_thread, to_thread
from places import in_thread
from pytest_marks import dies_at_once
from scripts import FORKS, PYPY, fork, raised, script, send_after, suspended

import anysync
from anysync._process import process

WATCHDOG = 30
var = ContextVar("var", default="unset")


class Oops(Exception):
    pass


backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@anysync.coroutine
async def thread():
    await anyio.sleep(0)
    return threading.current_thread()


@anysync.generator
async def threads(log=None):
    task = anyio.get_current_task().id
    try:
        with anyio.CancelScope(), anyio.CancelScope():
            for _ in range(3):
                await anyio.sleep(0)
                yield threading.current_thread()
    finally:
        if log is not None:
            log.append(anyio.get_current_task().id == task)


@anysync.contextmanager
async def manager(log=None):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        yield threading.current_thread()
        tasks.cancel_scope.cancel()
    if log is not None:
        log.append(threading.current_thread())


def by_run():
    return [thread().run()]


def by_function():
    return [anysync.run(thread())]


def by_future():
    return [thread().submit().result(WATCHDOG)]


def by_for():
    return list(threads())


def by_with():
    log = []
    with manager(log) as entered:
        inside = thread().run()
    return [entered, inside, *log]


every_way = pytest.mark.parametrize("way", [by_run, by_function, by_future, by_for, by_with])


def error_or_value(call):
    try:
        return call()
    except BaseException as error:
        return error


def in_worker(call, backend, **options):
    """Call in a worker thread of a loop that waits for it; return what that returns."""

    async def main():
        return await to_thread.run_sync(call, **options)

    return anyio.run(main, backend=backend)


@backends
@every_way
def test_the_loop_that_waits_serves(way, backend):
    async def main():
        home = threading.current_thread()
        for _ in range(2):
            used = await to_thread.run_sync(way)
            assert set(used) == {home}
        assert set(await to_thread.run_sync(way, abandon_on_cancel=True)) == {home}

    anyio.run(main, backend=backend)


@backends
def test_what_lives_on_the_loop_can_be_used(backend):
    async def main():
        async with anyio.create_task_group() as tasks:
            send, receive = anyio.create_memory_object_stream(0)
            tasks.start_soon(send.send, "item")
            item = await to_thread.run_sync(lambda: anysync.run(receive.receive()))
            lock = anyio.Lock()
            async with lock:
                error = await to_thread.run_sync(
                    lambda: error_or_value(lambda: anysync.run(locked(lock), timeout=0.01))
                )
            send.close()
            receive.close()
            return item, type(error), await to_thread.run_sync(lambda: anysync.run(locked(lock)))

    async def locked(lock):
        async with lock:
            return "locked"

    assert anyio.run(main, backend=backend) == ("item", TimeoutError, "locked")


@backends
def test_context_variables_are_the_threads_own(backend):
    async def see():
        seen = var.get()
        var.set("inside")
        return seen

    def call():
        token = var.set("worker's")
        seen = anysync.run(see())
        var.reset(token)
        return seen, var.get(), anysync.run(see())

    async def main():
        var.set("caller's")
        return await to_thread.run_sync(call)

    assert anyio.run(main, backend=backend) == ("worker's", "caller's", "caller's")


@backends
@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize("error", [Oops(), SystemExit(1), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_what_is_raised_is_the_callers(error, turns, backend):
    async def fails():
        for _ in range(turns):
            await anyio.sleep(0)
        raise error

    def call():
        return error_or_value(lambda: anysync.run(fails())), thread().run()

    raised, served = in_worker(call, backend)
    assert raised is error
    assert served is threading.current_thread()


@backends
@pytest.mark.parametrize("shielded", [False, True])
def test_a_cancel_of_the_task_that_waits_reaches_the_coroutine_and_the_thread(shielded, backend):
    async def endless():
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0)
            log.append("clean")

    def call():
        try:
            anysync.run(endless())
        except BaseException as error:
            log.append(type(error))
            raise

    async def main():
        nonlocal begun
        begun = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(to_thread.run_sync, call)
            await begun.wait()
            tasks.cancel_scope.cancel()
        return anyio.get_cancelled_exc_class()

    begun, log = None, []
    cancelled = anyio.run(main, backend=backend)
    assert log == ["clean", cancelled]


@backends
@pytest.mark.parametrize("when", ["before", "meanwhile"])
@pytest.mark.parametrize("use", ["call", "step", "enter"])
def test_a_scope_around_the_worker_knows_its_cancel(use, when, backend):
    async def endless():
        await anyio.sleep_forever()

    async def items():
        await anyio.sleep_forever()
        yield

    uses = {
        "call": lambda: anysync.run(endless()),
        "step": lambda: next(anysync.wrap_async_generator(items())),
        "enter": lambda: anysync.contextmanager(items)().__enter__(),
    }

    def worker(scope):
        if when == "before":
            from_thread.run_sync(scope.cancel)
        uses[use]()

    async def main():
        with anyio.move_on_after(0.01 if when == "meanwhile" else 60) as scope:
            await to_thread.run_sync(worker, scope)
        with pytest.raises(TimeoutError), anyio.fail_after(0.01):
            await to_thread.run_sync(uses[use])
        return scope.cancelled_caught

    assert anyio.run(main, backend=backend) is True


@backends
@pytest.mark.parametrize("use", ["call", "step"])
def test_a_cancel_reaches_the_worker_that_what_a_worker_calls_waits_for(use, backend):
    async def inner():
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            log.append("inner")

    async def outer():
        try:
            await to_thread.run_sync(lambda: anysync.run(inner()))
        finally:
            log.append("outer")

    async def items():
        await outer()
        yield

    uses = {"call": lambda: anysync.run(outer()), "step": lambda: list(anysync.wrap_async_generator(items()))}

    async def main():
        nonlocal begun
        begun = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(to_thread.run_sync, uses[use])
            await begun.wait()
            tasks.cancel_scope.cancel()

    begun, log = None, []
    anyio.run(main, backend=backend)
    assert log == ["inner", "outer"]


def test_a_loop_may_end_while_a_cancelled_call_cleans_up():
    async def call(scope):
        scope.cancel()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                try:
                    cleans_up.set()
                    await anyio.sleep_forever()
                finally:
                    await asyncio.sleep(0)
                    log.append("left")

    async def waits():
        with anyio.CancelScope() as scope:
            await to_thread.run_sync(lambda: anysync.run(call(scope)))

    async def main():
        nonlocal cleans_up
        cleans_up = anyio.Event()
        asyncio.create_task(waits())
        await cleans_up.wait()

    cleans_up, log = None, []
    asyncio.run(main())
    assert log == ["left"]


@pytest.mark.parametrize("where", ["in the body", "in a step"])
def test_the_end_of_the_loop_cancels_once(where):
    async def clean_up():
        try:
            for _ in range(5):
                await asyncio.sleep(0)
            log.append("whole")
        finally:
            cleaned_up.set()

    @anysync.contextmanager
    async def manager():
        try:
            yield
        finally:
            await clean_up()

    async def items():
        inside.set()
        try:
            await asyncio.sleep(WATCHDOG)
        except asyncio.CancelledError:
            asyncio.current_task().uncancel()
            await clean_up()
        yield

    def body():
        with manager():
            from_thread.run_sync(inside.set)
            cleaned_up.wait(WATCHDOG)

    def step():
        next(anysync.wrap_async_generator(items()))

    def worker():
        error_or_value(body if where == "in the body" else step)
        over.set()

    async def main():
        nonlocal inside
        inside = anyio.Event()
        asyncio.create_task(to_thread.run_sync(worker))
        await inside.wait()

    inside, cleaned_up, over, log = None, threading.Event(), threading.Event(), []
    asyncio.run(main())
    assert over.wait(WATCHDOG)
    assert log == ["whole"]


@backends
def test_a_scope_that_abandons_the_worker_cancels_its_call_on_asyncio_only(backend):
    """As `from_thread.run` does in the same place."""

    async def waits():
        begun.set()
        try:
            await go_on.wait()
        except BaseException as error:
            return type(error)
        return "went on"

    async def main():
        nonlocal begun, go_on
        begun, go_on, ended = anyio.Event(), anyio.Event(), anyio.Event()

        def worker():
            results.append(error_or_value(lambda: anysync.run(waits())))
            from_thread.run_sync(ended.set)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(to_thread.run_sync, worker, abandon_on_cancel=True))
            await begun.wait()
            tasks.cancel_scope.cancel()
        go_on.set()
        await ended.wait()

    begun, go_on, results = None, None, []
    anyio.run(main, backend=backend)
    assert results == [asyncio.CancelledError if backend == "asyncio" else "went on"]


@backends
@pytest.mark.parametrize("use", ["call", "step", "exit"])
def test_a_shield_in_what_the_worker_calls_holds_a_cancel_off(use, backend):
    async def critical():
        with anyio.CancelScope(shield=True):
            scope.cancel()
            for _ in range(10):
                await anyio.sleep(0)
        log.append("whole")
        await anyio.sleep(0)
        log.append("went on")

    async def items():
        await critical()
        yield

    @anysync.contextmanager
    async def resource():
        yield
        await critical()

    def leave():
        with resource():
            pass

    uses = {
        "call": lambda: anysync.run(critical()),
        "step": lambda: next(anysync.wrap_async_generator(items())),
        "exit": leave,
    }

    async def main():
        nonlocal scope
        with anyio.CancelScope() as scope:
            await to_thread.run_sync(uses[use])
        return scope.cancelled_caught

    scope, log = None, []
    assert anyio.run(main, backend=backend)
    assert log == ["whole"]


@backends
def test_a_generator_lives_in_one_task_of_that_loop(backend):
    def call():
        for _ in threads(log):
            break
        gc.collect()
        generator = threads(log)
        next(generator)
        generator.close()
        return list(threads(log))

    log = []
    in_worker(call, backend)
    gc.collect()
    assert log == [True] * 3


@backends
def test_an_object_that_is_begun_as_the_last_one_ends_lives_on(backend):
    def call():
        for _ in range(100):
            generator = threads()
            next(generator)
            generator.close()
        with manager():
            return [next(generator) for generator in [threads() for _ in range(3)]]

    assert set(in_worker(call, backend)) == {threading.current_thread()}


@backends
def test_a_body_may_go_on_in_another_thread(backend):
    def enter():
        opened.__enter__()
        return next(generator)

    def leave():
        opened.__exit__(None, None, None)
        return [*generator, thread().run()]

    async def main():
        first = await to_thread.run_sync(enter)
        done = []
        other = threading.Thread(target=lambda: done.append(leave()))
        other.start()
        await to_thread.run_sync(other.join)
        return first, done[0]

    log = []
    opened, generator = manager(log), threads()
    first, (*rest, last) = anyio.run(main, backend=backend)
    assert {first, *rest, *log} == {threading.current_thread()}
    assert last is not first  # the other thread is no worker


@backends
def test_what_is_left_open_does_not_keep_the_loop_from_its_end(backend):
    @anysync.generator
    async def items():
        try:
            yield 1
        finally:
            left.append("generator")

    @anysync.contextmanager
    async def open_manager():
        try:
            yield
        finally:
            left.append("with")

    def call():
        objects.extend([items(), open_manager()])
        next(objects[0])
        objects[1].__enter__()

    left, objects = [], []
    in_worker(call, backend)
    assert sorted(left) == ["generator", "with"]
    assert type(error_or_value(lambda: next(objects[0]))) in (RuntimeError, StopIteration)
    assert "has ended" in str(error_or_value(lambda: objects[1].__exit__(None, None, None)))


@backends
def test_nothing_is_left_on_the_loop(backend):
    async def main():
        await to_thread.run_sync(by_with)
        await to_thread.run_sync(by_for)
        for _ in range(3):
            await anyio.sleep(0)
        if backend == "asyncio":
            return len(asyncio.all_tasks())
        import trio

        system = trio.lowlevel.current_root_task().child_nurseries[0].child_tasks
        return len([task for task in system if "anysync" in task.name]) + 1

    assert anyio.run(main, backend=backend) == 1


@backends
def test_a_call_inside_the_call_is_code_in_a_loop(backend):
    async def outer():
        return threading.current_thread(), thread().run()

    home, inner = in_worker(lambda: anysync.run(outer()), backend)
    assert home is threading.current_thread()
    assert inner.name == "anysync background"


@backends
def test_what_a_worker_of_a_call_of_ours_submits_goes_on_after_that_call(backend):
    async def waits():
        while not ended.is_set():
            await anyio.sleep(0.001)
        return threading.current_thread().name

    async def main():
        return await to_thread.run_sync(lambda: anysync.wrap_coroutine(waits()).submit())

    ended = threading.Event()
    future = anysync.run(main(), backend=backend)
    ended.set()
    assert future.result(WATCHDOG) == "anysync helper"


@backends
def test_what_a_cancelled_worker_calls_begins_and_its_shielded_clean_up_is_made(backend):
    async def cleans_up(log):
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0)
            log.append("cleaned up")

    @anysync.contextmanager
    async def opened(log):
        try:
            yield
        except ValueError as error:
            log.append(error)

    def sync(scope, log):
        with opened(log):
            from_thread.run_sync(scope.cancel)
            anysync.run(cleans_up(log))
            raise error

    async def main():
        for _ in range(20):  # trio takes what is ready in any order
            log = []
            with anyio.CancelScope() as scope:
                await to_thread.run_sync(sync, scope, log)
            assert log == ["cleaned up", error]

    error = ValueError()
    anyio.run(main, backend=backend)


def test_a_generator_in_a_worker_may_cancel_itself():
    @anysync.generator
    async def numbers():
        try:
            yield 1
            asyncio.current_task().cancel()
            yield 2
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            yield 3

    assert in_worker(lambda: list(numbers()), "asyncio") == [1, 2, 3]


@backends
def test_tests_of_an_application_may_wait_until_all_its_tasks_are_blocked(backend):
    def begin():
        generator, opened = threads(), manager()
        next(generator)
        opened.__enter__()
        return generator, opened

    async def main():
        generator, opened = await to_thread.run_sync(begin)
        await anyio.wait_all_tasks_blocked()
        await to_thread.run_sync(generator.close)
        await to_thread.run_sync(opened.__exit__)

    anyio.run(main, backend=backend)


@backends
def test_code_on_the_loop_itself_is_told_that_it_would_wait_for_itself(backend):
    async def main():
        generator = await to_thread.run_sync(lambda: begun(threads()))
        error = error_or_value(lambda: next(generator))
        await to_thread.run_sync(generator.close)
        return error

    def begun(generator):
        next(generator)
        return generator

    error = anyio.run(main, backend=backend)
    assert (type(error), str(error)[:23]) == (RuntimeError, "would wait for itself: ")


@backends
def test_an_entered_context_is_refused_and_the_coroutine_closed(backend):
    def call():
        context = copy_context()
        return context.run(error_or_value, lambda: anysync.run(anyio.sleep(0), context=context))

    error = in_worker(call, backend)
    assert type(error) is RuntimeError
    assert "entered already" in str(error)


@pytest.mark.parametrize("error", [RuntimeError("run finished"), CancelledError()], ids=repr)
def test_a_call_that_never_gets_to_the_loop_says_why(error, monkeypatch):
    def fails(*_):
        raise error

    def call():
        monkeypatch.setattr(from_thread, "run", fails)
        try:
            return error_or_value(lambda: anysync.run(anyio.sleep(0)))
        finally:
            monkeypatch.undo()

    raised = in_worker(call, "asyncio")
    if isinstance(error, RuntimeError):
        assert str(raised) == "the loop that waits for this thread has just ended"
    else:
        assert raised is error


@backends
def test_another_backend_is_not_the_loops(backend):
    async def library():
        await anyio.sleep(0)
        return sniffio.current_async_library(), threading.current_thread()

    other = {"asyncio": "trio", "trio": "asyncio"}[backend]

    def call():
        return anysync.run(library(), backend=other), anysync.run(library(), backend=backend)

    (used, own), (home, main) = in_worker(call, backend)
    assert (used, home) == (other, backend)
    assert own is not threading.current_thread()
    assert main is threading.current_thread()


@backends
@every_way
def test_it_can_be_turned_off(way, backend, monkeypatch):
    monkeypatch.setattr(process, "go_home", True)
    anysync.configure(go_home=False)
    anysync.configure(backend_options={})
    used, own = in_worker(lambda: (way(), threading.current_thread()), backend)
    assert threading.current_thread() not in used
    assert way is by_future or set(used) == {own}  # a future's helper thread does the work
    anysync.configure(go_home=True)
    assert threading.current_thread() in in_worker(way, backend)


@backends
def test_a_thread_that_was_abandoned_serves_itself(backend):
    def call(scope):
        from_thread.run_sync(scope.cancel)
        cancelled.wait(WATCHDOG)
        used.append(error_or_value(lambda: thread().run()))
        done.set()

    async def main():
        with anyio.CancelScope() as scope:
            await to_thread.run_sync(call, scope, abandon_on_cancel=True)
        cancelled.set()
        await to_thread.run_sync(done.wait, WATCHDOG)
        return threading.current_thread()

    used, cancelled, done = [], threading.Event(), threading.Event()
    home = anyio.run(main, backend=backend)
    assert isinstance(used[0], threading.Thread)
    if backend == "asyncio":  # trio's loop goes on serving it
        assert used[0] is not home


@backends
@pytest.mark.parametrize("way", [by_run, by_function, by_for, by_with])
def test_a_thread_whose_loop_is_gone_serves_itself(way, backend):
    def call(scope):
        from_thread.run_sync(scope.cancel)
        gone.wait(WATCHDOG)
        used.append((error_or_value(way), threading.current_thread()))
        done.set()

    async def main():
        with anyio.CancelScope() as scope:
            await to_thread.run_sync(call, scope, abandon_on_cancel=True)

    used, gone, done = [], threading.Event(), threading.Event()
    anyio.run(main, backend=backend)
    gone.set()
    assert done.wait(WATCHDOG)
    assert set(used[0][0]) == {used[0][1]}


@script(within=3)
def test_a_worker_of_a_kept_loop_goes_on_when_nobody_waits_for_the_loop():
    async def slow():
        begun.set()
        await anyio.sleep(0.2)
        return "done"

    def work():
        results.append(anysync.run(slow()))
        with anysync.contextmanager(opened)() as entered:
            results.append(entered)
        over.set()

    async def opened():
        await anyio.sleep(0.01)
        yield "entered"

    async def main():
        await to_thread.run_sync(work)

    async def give_up():
        task = asyncio.create_task(main())
        await to_thread.run_sync(begun.wait)
        task.cancel()  # natively, which leaves the worker behind

    results, begun, over = [], threading.Event(), threading.Event()
    anysync.run(give_up())
    assert over.wait(WATCHDOG)
    assert results == ["done", "entered"]


@backends
def test_code_of_ours_waits_for_workers_too(backend):
    async def main():
        return threading.current_thread(), await to_thread.run_sync(by_run)

    for place in (
        lambda call: call(),
        lambda call: anyio.run(partial(asyncio.sleep, 0, None)) or call(),
    ):
        home, used = place(lambda: anysync.run(main(), backend=backend))
        assert used == [home]


def test_sync_endpoints_of_starlette_share_the_applications_client():
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    httpx = pytest.importorskip("httpx")
    seen = []

    def endpoint(request):
        value = anysync.run(request.app.state.pool.receive())
        seen.append(thread().run())
        return PlainTextResponse(value)

    async def main():
        app = Starlette(routes=[Route("/", endpoint)])
        send, app.state.pool = anyio.create_memory_object_stream(1)
        await send.send("pooled")
        with send, app.state.pool:
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://application"
            ) as client:
                return (await client.get("/")).text, threading.current_thread()

    text, home = asyncio.run(main())
    assert text == "pooled"
    assert seen == [home]


@backends
def test_as_many_workers_as_there_may_be_can_all_call_what_needs_a_worker(backend):
    async def needs_a_worker():
        return await to_thread.run_sync(threading.get_ident)

    def call():
        together.wait(WATCHDOG)
        return anysync.run(needs_a_worker(), timeout=WATCHDOG)

    async def main():
        limiter = to_thread.current_default_thread_limiter()
        limiter.total_tokens = 4
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(to_thread.run_sync, call)
        return limiter.total_tokens

    together = threading.Barrier(4)
    assert anyio.run(main, backend=backend) == 4


@script
def test_many_new_workers_call_at_once():
    def call():
        together.wait(WATCHDOG)
        assert anysync.run(thread()) is home

    async def main():
        async with anyio.create_task_group() as tasks:
            for _ in range(40):
                tasks.start_soon(to_thread.run_sync, call)

    sys.setswitchinterval(1e-5)
    home = threading.current_thread()
    for _ in range(10):
        together = threading.Barrier(40)
        anyio.run(main)


@every_way
def test_trios_own_workers_go_home_too(way):
    import trio

    async def main():
        return await trio.to_thread.run_sync(way), threading.current_thread()

    for used, home in trio.run(main), in_thread(lambda: anysync.run(main(), backend="trio")):
        assert set(used) == {home}


def test_a_cancel_of_trios_own_worker_reaches_the_coroutine():
    import trio

    async def endless():
        begun.set()
        try:
            await anyio.sleep_forever()
        except trio.Cancelled:
            log.append("cancelled")
            raise

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, lambda: anysync.run(endless()))
            await begun.wait()
            nursery.cancel_scope.cancel()
        return nursery.cancel_scope.cancelled_caught

    log, begun = [], trio.Event()
    assert trio.run(main)
    assert log == ["cancelled"]


@script
def test_trios_workers_need_no_anyio():
    import trio

    @anysync.coroutine
    async def here():
        await trio.sleep(0)
        return threading.current_thread()

    def call():
        with entered() as inside:
            return [here().run(), inside]

    @anysync.contextmanager
    async def entered():
        yield threading.current_thread()

    async def main():
        return await trio.to_thread.run_sync(call)

    for name in [name for name in sys.modules if name.partition(".")[0] == "anyio"]:
        del sys.modules[name]
    sys.modules["anyio"] = None
    assert set(trio.run(main)) == {threading.current_thread()}
    del sys.modules["anyio"]


@backends
@script(options=FORKS)
def test_the_child_of_a_worker_that_forks_has_no_loop_to_go_to(backend):
    def call():
        assert thread().run() is home
        assert fork(child) == 0
        assert thread().run() is home

    def child():
        assert thread().run() is threading.current_thread()
        assert [*threads()] == [threading.current_thread()] * 3

    home = threading.current_thread()
    in_worker(call, backend)


def test_a_coroutine_that_is_no_function_may_refuse_to_be_closed_when_it_has_ended():
    class Own(Coroutine):
        def __init__(self, coro):
            self.coro = coro

        def __await__(self):
            return self.coro.__await__()

        def send(self, value):
            return self.coro.send(value)

        def throw(self, *error):
            return self.coro.throw(*error)

    async def fails():
        await anyio.sleep(0)
        raise error

    error = Oops()
    assert in_worker(lambda: error_or_value(lambda: anysync.run(Own(fails()))), "asyncio") is error
    assert error_or_value(lambda: anysync.run(Own(fails()))) is error


@pytest.mark.parametrize("turns", range(6))
def test_a_call_that_is_cancelled_before_it_begins_leaves_no_coroutine(turns, recwarn):
    async def work():
        await anyio.sleep_forever()

    def call():
        calling.set()
        anysync.run(work())

    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(to_thread.run_sync, call)
            while not calling.is_set():
                await anyio.sleep(0)
            for _ in range(turns):
                await asyncio.sleep(0)
            tasks.cancel_scope.cancel()

    calling = threading.Event()
    asyncio.run(main())
    gc.collect()
    assert not [str(warning.message) for warning in recwarn]


@backends
def test_a_generator_that_is_left_since_its_worker_is_cancelled_is_no_error(backend, caplog):
    @anysync.generator
    async def items(scope):
        try:
            scope.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.wait_all_tasks_blocked()
            yield 1
        finally:
            log.append("closed")
            await anyio.sleep(0)

    def call(scope):
        steps = items(scope)
        assert next(steps) == 1
        del steps

    async def main():
        with anyio.CancelScope() as scope:
            await to_thread.run_sync(call, scope)
        await anyio.wait_all_tasks_blocked()

    log = []
    anyio.run(main, backend=backend)
    assert log == ["closed"]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_portals_thread_is_plain_code():
    with from_thread.start_blocking_portal() as portal:
        assert portal.call(anyio.sleep, 0) is None
        assert thread().run() is threading.current_thread()


@dies_at_once
def test_what_a_call_used_dies_with_it():
    class Thing:
        pass

    def call():
        import weakref

        async def uses(argument, fails):
            await anyio.sleep(0)
            if fails:
                raise Oops

        things = []
        for fails in False, True:
            thing = Thing()
            things.append(weakref.ref(thing))
            with suppress(Oops):
                anysync.run(uses(thing, fails))
            del thing
            thread().run()
        return [reference() for reference in things]

    gc.collect()
    gc.disable()
    try:
        assert in_worker(call, "asyncio") == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("module", ["anyio._core._eventloop", "sniffio"])
def test_a_library_that_another_thread_is_just_importing_is_none_yet(module, monkeypatch):
    async def here():
        return threading.current_thread()

    monkeypatch.setitem(sys.modules, module, ModuleType(module))
    own, *used = in_thread(lambda: [threading.current_thread(), *(anysync.run(here()) for _ in range(2))])
    assert used == [own, own]


def test_the_private_names_of_anyio_are_what_they_were():
    from anyio._core import _eventloop

    def call():
        assert "anyio._core._eventloop" in sys.modules
        token = _eventloop.threadlocals.current_token
        return getattr(token, "native_token", token)

    async def main():
        return await to_thread.run_sync(call) is asyncio.get_running_loop()

    assert anyio.run(main)


@backends
@pytest.mark.parametrize("use", ["call", "step"])
@script
def test_ctrl_c_in_the_loop_that_waits_cancels_once_and_waits_for_the_clean_up(use, backend):
    event, log = threading.Event(), []

    async def waits():
        try:
            await suspended(event)
        finally:
            log.append("cleans up")
            with anyio.CancelScope(shield=True):
                for _ in range(5):
                    await anyio.sleep(0)
            log.append("has cleaned up")

    async def items():
        await waits()
        yield

    uses = {"call": lambda: anysync.run(waits()), "step": lambda: list(anysync.wrap_async_generator(items()))}
    thread = send_after(event)
    assert isinstance(
        raised(lambda: anyio.run(to_thread.run_sync, uses[use], backend=backend)), KeyboardInterrupt
    )
    thread.join()
    assert log == ["cleans up", "has cleaned up"]


@pytest.mark.skipif(PYPY, reason="PyPy's tasks leave a frame of their own, and one of ours behind it")
def test_a_cancelled_error_of_the_coroutines_own_comes_with_one_frame_of_ours():
    async def fails():
        await anyio.sleep(0)
        raise asyncio.CancelledError

    def call():
        error = raised(lambda: anysync.run(fails()))
        return [frame.name for frame in traceback.extract_tb(error.__traceback__)]

    assert anyio.run(to_thread.run_sync, call) == ["raised", "<lambda>", "run", "fails"]
