"""Where things run: the thread and the loop that serve a call, step or body, and how long they live."""

import asyncio
import contextlib
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
import trio
from loops import CANCELS, call_soon, leave_behind, post, shielded, this_loop
from places import error_of, in_async_code, in_loop, in_thread, nested, plain
from pytest_marks import on_asyncio, on_both
from scripts import collect_dropped, python, threads_since

import anysync
from anysync import AnySyncCoroutine

pytestmark = on_both
BACKGROUND = "anysync background"


@anysync.coroutine
async def who(suspended=True):
    if suspended:
        await anyio.sleep(0)
    return threading.current_thread()


@anysync.coroutine
async def loop_of(suspended=True):
    if suspended:
        await anyio.sleep(0)
    return this_loop()


@anysync.generator
async def steps(what=who):
    for n in range(4):
        yield await what(n % 2 == 0)


@anysync.contextmanager
async def opened(what=who, log=None):
    yield await what()
    if log is not None:
        log.append(await what())


def by_run(what):
    return [what().run(), what(False).run()]


def by_function(what):
    return [anysync.run(what()), anysync.run(what(False))]


def by_future(what):
    return [what().submit().result(30), what(False).submit().result(30)]


def by_for(what):
    return list(steps(what))


def by_with(what):
    log = []
    with opened(what, log) as first:
        pass
    return [first, *log]


every_way = pytest.mark.parametrize("way", [by_run, by_function, by_future, by_for, by_with])
every_step = pytest.mark.parametrize("way", [by_run, by_function, by_for, by_with])


# the table, row by row


@every_step
def test_plain_code_runs_in_its_own_thread(way):
    assert set(way(who)) == {threading.current_thread()}


@every_step
def test_a_worker_thread_is_plain_code_too(way):
    used, own = in_thread(lambda: (way(who), threading.current_thread()))
    assert set(used) == {own}


@every_step
@on_asyncio
def test_the_worker_threads_of_asyncio_are_plain_code_too(way):
    async def main():
        return await asyncio.to_thread(lambda: (way(who), threading.current_thread()))

    for used, own in in_async_code(main), in_thread(lambda: anysync.run(main())):
        assert set(used) == {own}


@every_way
def test_code_in_a_foreign_loop_uses_the_background_thread(way):
    (thread,) = set(in_loop(lambda: way(who)))
    assert thread.name == BACKGROUND
    assert thread is not threading.current_thread()
    assert set(in_thread(lambda: in_loop(lambda: way(who)))) == {thread}


@every_way
def test_code_in_a_coroutine_driven_inline_uses_the_background_thread(way):
    async def main(suspended):
        if suspended:
            await anyio.sleep(0)
        return threading.current_thread(), way(who)

    background = in_loop(who().run)
    for suspended in False, True:
        own, used = anysync.run(main(suspended))
        assert own is threading.current_thread()
        assert set(used) == {background}


def test_code_in_a_generator_and_a_context_manager_driven_inline_uses_the_background_thread():
    @anysync.generator
    async def generator():
        yield who().run()
        await anyio.sleep(0)
        yield who().run()

    @anysync.contextmanager
    async def manager():
        yield who().run()

    with manager() as thread:
        assert {thread, *generator()} == {in_loop(who().run)}


def test_a_callback_of_a_foreign_loop_uses_the_background_thread():
    assert in_async_code(by_callback).name == BACKGROUND
    assert anysync.run(by_callback()).name == BACKGROUND


async def by_callback():
    def call():
        threads.append(who().run())
        called.set()

    called, threads = anyio.Event(), []
    call_soon(call)
    await called.wait()
    return threads[0]


@on_asyncio
@every_way
def test_code_in_uvloop_uses_the_background_thread(way):
    uvloop = pytest.importorskip("uvloop")

    async def main():
        return way(who)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert set(runner.run(main())) == {in_loop(who().run)}


@every_step
def test_code_on_the_background_thread_gets_a_thread_of_its_own(way):
    async def main():
        used = way(who)
        return used, [thread for thread in used if thread.is_alive()]

    used, alive = in_loop(lambda: anysync.run(main()))
    assert not {threading.current_thread(), in_loop(who().run)} & set(used)
    assert alive == []


@pytest.mark.parametrize("way", [by_run, by_function, by_future])
def test_each_call_on_the_background_thread_gets_another_thread(way):
    first, second = nested(lambda: way(who))
    assert first is not second


@pytest.mark.parametrize("way", [by_for, by_with])
def test_one_object_on_the_background_thread_keeps_its_thread(way):
    assert len(set(nested(lambda: way(who)))) == 1


def test_a_submitted_call_on_the_background_thread_ends_its_thread_too():
    async def main():
        return who().submit()

    thread = in_loop(lambda: anysync.run(main())).result(30)
    thread.join(30)
    assert not thread.is_alive()


def test_a_callback_on_the_background_thread_gets_a_thread_of_its_own():
    thread = in_loop(lambda: anysync.run(by_callback()))
    assert thread not in (threading.current_thread(), in_loop(who().run))
    assert not thread.is_alive()


def test_code_on_the_thread_of_a_runner_gets_a_thread_of_its_own():
    async def main():
        return threading.current_thread(), who().run()

    with anysync.Runner() as runner:
        own, used = runner.run(main())
    assert used not in (own, threading.current_thread(), in_loop(who().run))
    assert not used.is_alive()


def test_calls_nest_as_deep_as_they_like():
    @anysync.coroutine
    async def dive(depth):
        if depth % 2:
            await anyio.sleep(0)
        return [threading.current_thread(), *(dive(depth - 1).run() if depth else [])]

    threads = dive(6).run()
    assert threads[0] is threading.current_thread()
    assert threads[1].name == BACKGROUND
    assert len(set(threads)) == 7
    assert not any(thread.is_alive() for thread in threads[2:])


@pytest.mark.parametrize("suspended", [False, True])
def test_a_call_in_a_call_uses_one_other_thread_however_often(suspended):
    used = set()  # of threads: the idents of those that have ended are given out again

    @anysync.coroutine
    async def f():
        used.add(threading.current_thread())
        g().run()

    @anysync.coroutine
    async def g():
        used.add(await who(suspended))

    f().run()
    f().run()
    assert len(used - {threading.current_thread()}) == 1


@pytest.mark.parametrize("suspended", [False, True])
def test_a_call_in_a_call_in_a_call_uses_a_new_thread_each_time(suspended):
    used = set()

    @anysync.coroutine
    async def f():
        used.add(threading.current_thread())
        g().run()

    @anysync.coroutine
    async def g():
        used.add(threading.current_thread())
        h().run()

    @anysync.coroutine
    async def h():
        used.add(await who(suspended))

    f().run()
    f().run()
    assert len(used - {threading.current_thread()}) == 3


# while a task on the background thread has something open


@every_way
def test_an_open_with_on_the_background_thread_serves_the_calls_of_its_task(way):
    async def main():
        with opened() as server:
            await anyio.sleep(0)
            inside = way(who)
        return server, inside, who().run()

    server, inside, after = in_loop(lambda: anysync.run(main()))
    assert set(inside) == {server}
    assert after is not server
    assert not server.is_alive()


@every_way
def test_an_open_generator_on_the_background_thread_serves_the_calls_of_its_task(way):
    async def main():
        generator = steps()
        server = next(generator)
        inside = way(who)
        generator.close()
        return server, inside, who().run()

    server, inside, after = in_loop(lambda: anysync.run(main()))
    assert set(inside) == {server}
    assert after is not server
    assert not server.is_alive()


def test_a_thread_that_serves_an_open_object_lasts_until_the_last_one_closes():
    async def main():
        generator = steps()
        with opened() as server:
            assert next(generator) is server
        assert who().run() is server
        assert list(generator) == [server] * 3
        return server

    assert not in_loop(lambda: anysync.run(main())).is_alive()


def test_an_open_with_does_not_serve_the_calls_of_other_tasks():
    async def sibling():
        with opened() as other:
            seen.extend([other, who().run()])

    async def main():
        with opened() as server:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(sibling)
        return server, *seen, threading.current_thread()

    seen = []

    server, other, inside, own = in_loop(lambda: anysync.run(main()))
    assert inside is other
    assert len({server, other, own}) == 3


def test_code_in_what_an_open_with_serves_gets_a_thread_of_its_own():
    @anysync.coroutine
    async def deeper():
        return threading.current_thread(), who().run()

    async def main():
        with opened() as server:
            return server, *deeper().run()

    server, outer, inner = in_loop(lambda: anysync.run(main()))
    assert outer is server
    assert inner not in (server, in_loop(who().run))
    assert not inner.is_alive()


# kept loops


async def contend(lock):
    """Have a task wait for `lock`, which ties that of asyncio to the loop."""

    async def wait_for_it():
        async with lock:
            pass

    async with anyio.create_task_group() as tasks, lock:
        tasks.start_soon(wait_for_it)
        await anyio.sleep(0)


async def pass_through(send, receive):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send, "item")
        return await receive()


@pytest.mark.parametrize("place", [plain, in_loop])
def test_locks_and_queues_of_one_call_work_in_the_next(place, backend):
    locks = anyio.Lock(), {"asyncio": asyncio.Lock, "trio": trio.Lock}[backend]()
    queue = asyncio.Queue()
    sender, receiver = anyio.create_memory_object_stream()
    with sender, receiver:
        for _ in range(3):
            for lock in locks:
                place(lambda lock=lock: anysync.run(contend(lock)))
            assert place(lambda: anysync.run(pass_through(sender.send, receiver.receive))) == "item"
            if backend == "asyncio":
                assert place(lambda: anysync.run(pass_through(queue.put, queue.get))) == "item"


@pytest.mark.parametrize("place", [plain, in_loop])
def test_calls_and_generators_and_context_managers_share_a_loop(place):
    ways = by_run, by_function, by_future, by_for, by_with
    assert len({loop for way in ways for loop in place(lambda way=way: way(loop_of))}) == 1


def test_each_thread_keeps_a_loop_of_its_own():
    with ThreadPoolExecutor(1) as pool:
        first, second = (pool.submit(loop_of().run).result(30) for _ in range(2))
        assert first is second is not loop_of().run()
        assert not has_ended(first)
    collect_dropped()
    assert has_ended(first)


@contextlib.contextmanager
def echo_server():
    """Serve on a plain socket, on a thread; give the port and the list of connections."""
    peers = []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                peers.append(peer)
                with peer:
                    while data := peer.recv(1000):
                        peer.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], peers
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        # where that does not wake accept(), a last connection does
        with contextlib.suppress(OSError):
            socket.create_connection(listener.getsockname(), 1).close()
        thread.join(10)


@pytest.mark.parametrize("place", [plain, in_loop])
def test_a_connection_of_one_call_works_in_the_next(place):
    class Client:
        @anysync.coroutine
        async def connect(self, port):
            self.stream = await anyio.connect_tcp("127.0.0.1", port)

        @anysync.coroutine
        async def ask(self, line):
            await self.stream.send(line)
            return await self.stream.receive()

        @anysync.coroutine
        async def close(self):
            await self.stream.aclose()

    with echo_server() as (port, peers):
        client = Client()
        place(client.connect(port).run)
        assert place(client.ask(b"one\n").run) == b"one\n"
        assert place(client.ask(b"two\n").run) == b"two\n"
        place(client.close().run)
        assert len(peers) == 1


def test_a_task_left_behind_goes_on_in_the_next_call():
    log = []

    async def left_behind():
        for _ in range(100):
            await anyio.sleep(0)
            log.append(threading.current_thread())
        log.append("ended")

    async def leave():
        return leave_behind(left_behind)

    async def turn(times):
        for _ in range(times):
            await anyio.sleep(0)

    _ = anysync.run(leave())
    assert log == []
    anysync.run(turn(3))
    assert 0 < len(log) < 100
    anysync.run(turn(200))
    assert log == [*[threading.current_thread()] * 100, "ended"]


def test_a_task_left_behind_on_the_background_thread_goes_on_between_calls():
    ended = threading.Event()

    async def left_behind():
        for _ in range(3):
            await anyio.sleep(0.001)
        ended.set()

    async def leave():
        return leave_behind(left_behind)

    _ = in_loop(lambda: anysync.run(leave()))
    assert ended.wait(30)


# when a thread ends


def has_ended(loop):
    try:
        post(loop, int)
    except RuntimeError:
        return True
    return False


def descriptors():
    for folder in "/proc/self/fd", "/dev/fd":
        if os.path.isdir(folder):
            return len(os.listdir(folder))
    return pytest.skip("no list of this process's descriptors")


def test_the_loop_of_a_thread_ends_with_it():
    log, tasks = [], []

    async def left_behind():
        try:
            await anyio.Event().wait()
        except CANCELS:
            await shielded(anyio.sleep, 0)
            log.append("cleaned up")
            raise

    async def leave():
        tasks.append(leave_behind(left_behind))
        await anyio.sleep(0)
        return this_loop()

    loop = in_thread(lambda: anysync.run(leave()))
    assert has_ended(loop)
    assert log == ["cleaned up"]


def with_nothing_open():
    pass


def with_something_open():
    with opened():
        pass
    generator = steps()
    next(generator)


def with_a_helper_thread():
    who().submit().result(30)


def with_executor_threads():
    anysync.run(asyncio.to_thread(int), backend="asyncio")


@pytest.mark.parametrize(
    "use", [with_nothing_open, with_something_open, with_a_helper_thread, with_executor_threads]
)
def test_many_short_threads_leave_nothing_behind(use):
    log, tasks = [], []

    async def left_behind():
        try:
            await anyio.Event().wait()
        finally:
            await shielded(anyio.sleep, 0)
            log.append(None)

    async def leave():
        tasks.append(leave_behind(left_behind))
        await anyio.sleep(0)

    def call():
        anysync.run(leave())
        use()

    in_loop(who().run)
    before, threads = descriptors(), threading.enumerate()
    for _ in range(100):
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    assert descriptors() <= before  # what earlier tests have left may be collected meanwhile
    assert threads_since(threads) == []
    assert len(log) == len(tasks) == 100


def test_a_generator_whose_thread_has_ended_says_so():
    log = []

    @anysync.generator
    async def generator():
        try:
            yield 1
            yield 2
        finally:
            await anyio.sleep(0)
            log.append("closed")

    numbers = generator()
    assert in_thread(lambda: next(numbers)) == 1
    assert log == ["closed"]
    for step in numbers.__next__, lambda: numbers.send(None), lambda: numbers.throw(KeyError()):
        error = error_of(step)
        assert type(error) is RuntimeError
        assert "thread" in str(error)
        assert "ended" in str(error)


def test_a_context_manager_whose_thread_has_ended_says_so():
    log = []

    @anysync.contextmanager
    async def manager():
        try:
            yield
        finally:
            await anyio.sleep(0)
            log.append("closed")

    entered = manager()
    in_thread(entered.__enter__)
    assert log == ["closed"]
    with pytest.raises(RuntimeError, match=r"thread.* has ended"):
        entered.__exit__(None, None, None)
    assert log == ["closed"]


@pytest.mark.parametrize("begun", [True, False])
def test_a_future_of_a_thread_that_has_ended_is_done(begun):
    @anysync.coroutine
    async def work(started):
        started.set()
        await anyio.Event().wait()

    def call():
        started = threading.Event()
        future = work(started).submit()
        if begun:
            assert started.wait(30)
        return future

    for _ in range(20):  # without waiting for `started`, either thread may come first
        assert in_thread(call).done()


def test_a_step_that_would_wait_for_itself_raises():
    generator = steps()
    next(generator)

    async def main():
        return error_of(lambda: next(generator))

    error = anysync.run(main())
    assert type(error) is RuntimeError
    assert "would wait for itself" in str(error)
    assert next(generator) is threading.current_thread()
    generator.close()


# programs of their own


def test_the_first_use_from_many_threads_at_once_starts_one_background_thread(backend):
    assert python(
        f"""
        import anyio, threading, anysync

        barrier, served = threading.Barrier(32), []

        async def who():
            return threading.current_thread()

        async def main():
            barrier.wait(30)
            served.append(anysync.run(who()))

        threads = [threading.Thread(target=lambda: anyio.run(main, backend={backend!r})) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        alive = [thread.name for thread in threading.enumerate()]
        print(len(served), len(set(served)), alive.count("anysync background"), len(alive))
        """
    ) == ["32", "1", "1", "2"]


@on_asyncio
def test_plain_code_starts_no_thread():
    assert python(
        """
        import asyncio, threading, anysync

        @anysync.coroutine
        async def work():
            await asyncio.sleep(0.001)

        @anysync.generator
        async def numbers():
            yield 1

        @anysync.contextmanager
        async def manager():
            yield

        work().run()
        for _ in numbers():
            pass
        with manager():
            work().run()
        print(threading.active_count())
        """
    ) == ["1"]


@on_asyncio
def test_what_is_left_behind_is_cleaned_up_when_the_process_ends():
    assert sorted(
        python(
            """
            import asyncio, anysync

            tasks = []

            async def left_behind(name):
                try:
                    await asyncio.Event().wait()
                finally:
                    await asyncio.sleep(0)
                    print(name)

            async def leave(name):
                tasks.append(asyncio.create_task(left_behind(name)))
                await asyncio.sleep(0)

            async def main():
                anysync.run(leave("background"))

            anysync.run(leave("kept"))
            asyncio.run(main())
            """
        )
    ) == ["background", "kept"]


@on_asyncio
@pytest.mark.parametrize("call", ["anysync.run(work())", "asyncio.run(in_loop())", "anysync.run(in_loop())"])
def test_a_loop_that_has_used_its_executor_closes_quietly_when_the_process_ends(call):
    assert python(
        f"""
        import asyncio, anysync

        async def work():
            return await asyncio.to_thread(int)

        async def in_loop():
            await asyncio.to_thread(int)
            return anysync.run(work())

        print({call})
        """
    ) == ["0"]


@on_asyncio
def test_an_async_loop_is_not_blocked_by_what_runs_elsewhere():
    """Row three on a worker thread: the loop that waits for the thread goes on."""

    async def main():
        met = asyncio.Barrier(2)
        loop = asyncio.get_running_loop()

        @anysync.coroutine
        async def work():
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(met.wait(), loop))

        async with asyncio.timeout(30):
            await asyncio.gather(met.wait(), asyncio.to_thread(work().run))

    asyncio.run(main())


@on_asyncio
@pytest.mark.parametrize("use", [with_nothing_open, with_something_open])
def test_a_thread_whose_loop_somebody_has_closed_gets_another_one(use):
    def call():
        use()
        steps_of_old = steps()
        next(steps_of_old)
        loop = anysync.run(get_loop())
        loop.close()
        assert type(error_of(lambda: next(steps_of_old))) is RuntimeError
        assert "closed" in str(error_of(lambda: next(steps_of_old)))
        assert anysync.run(get_loop()) is not loop
        assert who().run() is threading.current_thread()
        with_a_helper_thread()
        use()

    async def get_loop():
        await anyio.sleep(0)
        return this_loop()

    in_thread(call)


def test_a_call_that_waits_does_not_hold_up_the_other_calls_on_the_background_thread():
    started = threading.Event()

    async def wait(go):
        started.set()
        await go.wait()
        return threading.current_thread()

    async def release(go):
        go.set()
        return threading.current_thread()

    go = anyio.Event()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(in_loop, lambda: anysync.run(wait(go)))
        assert started.wait(30)
        assert in_loop(lambda: AnySyncCoroutine(release(go)).run()) is waiting.result(30)
