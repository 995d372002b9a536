"""An object that was made in one call is "attached to a different loop" in the next.

PrefectHQ/prefect#13181, django/channels_redis#312: made on one loop, used on another. Here each place keeps
its loop, one runner serves all places, and what is used elsewhere raises at once instead of waiting for ever.
"""

import asyncio
import threading
from importlib.util import find_spec

import pytest
import scripts
from scripts import raised, script

import anysync

needs_aiohttp = pytest.mark.skipif(find_spec("aiohttp") is None, reason="aiohttp is not installed")
homes = pytest.mark.parametrize("home", ["plainly", "in_loop"])


def in_thread(call):
    results = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join()
    return results[0]


def elsewhere(home):
    """Return the places whose loop is another than that of the place `home`."""
    if home == "plainly":
        return scripts.in_loop, in_thread
    return scripts.plainly, in_thread


async def this_loop():
    return asyncio.get_running_loop()


async def new_queue():
    """Return a queue that knows its loop: one that has been waited for."""
    queue = asyncio.Queue()
    await pass_through(queue)
    return queue


async def pass_through(queue):
    getter = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.put_nowait("item")
    return await getter


@homes
@script
def test_03_a_queue_works_in_every_later_call_at_home_and_says_elsewhere_that_it_cannot(home):
    home_place = getattr(scripts, home)
    queue = home_place(lambda: anysync.run(new_queue()))
    for other in elsewhere(home):
        assert home_place(lambda: anysync.run(pass_through(queue))) == "item"
        error = other(lambda: raised(lambda: anysync.run(queue.get(), timeout=10)))
        assert isinstance(error, RuntimeError), error
        assert "is bound to a different event loop" in str(error)
    assert home_place(lambda: anysync.run(pass_through(queue))) == "item"


@homes
@script
def test_03_a_future_is_awaited_at_home_and_says_elsewhere_that_it_cannot(home):
    async def new():
        return asyncio.get_running_loop().create_future()

    async def awaited(future):
        return await future

    async def resolved(future):
        asyncio.get_running_loop().call_soon(future.set_result, "value")
        return await future

    home_place = getattr(scripts, home)
    for other in elsewhere(home):
        future, its_twin = (home_place(lambda: anysync.run(new())) for _ in range(2))
        error = other(lambda future=future: raised(lambda: anysync.run(awaited(future), timeout=10)))
        assert isinstance(error, RuntimeError), error
        assert "attached to a different loop" in str(error), error
        assert home_place(lambda future=its_twin: anysync.run(resolved(future))) == "value"


@homes
@script
def test_03_generators_and_managers_stay_on_their_loop_wherever_they_are_stepped(home):
    @anysync.generator
    async def loops():
        while True:
            yield await this_loop()

    @anysync.contextmanager
    async def entered():
        before = await this_loop()
        try:
            yield before
        finally:
            left.append(await this_loop())

    left = []
    home_place = getattr(scripts, home)
    generator, manager = loops(), entered()
    seen = [home_place(lambda: anysync.run(this_loop())), home_place(lambda: next(generator))]
    seen.append(home_place(manager.__enter__))
    seen += [other(lambda: next(generator)) for other in elsewhere(home)]
    in_thread(lambda: manager.__exit__(None, None, None))
    in_thread(generator.close)
    assert len({*seen, *left}) == 1
    assert len(left) == 1


def new_web_server():
    from aiohttp import web

    async def hello(request):
        return web.Response(text="hello")

    @anysync.contextmanager
    async def web_server():
        app = web.Application()
        app.router.add_get("/", hello)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield "http://127.0.0.1:{1}/".format(*runner.addresses[0])
        finally:
            await runner.cleanup()

    return web_server()


async def new_session():
    import aiohttp

    return aiohttp.ClientSession()


async def get(session, url):
    async with session.get(url) as response:
        return await response.text()


@needs_aiohttp
@homes
@script
def test_03_an_aiohttp_session_works_at_home_and_says_elsewhere_that_it_cannot(home):
    home_place = getattr(scripts, home)
    with anysync.Runner() as servers, servers.enter(new_web_server()) as url:
        session = home_place(lambda: anysync.run(new_session()))
        for other in elsewhere(home):
            assert home_place(lambda: anysync.run(get(session, url))) == "hello"
            error = other(lambda: raised(lambda: anysync.run(get(session, url), timeout=10)))
            assert isinstance(error, RuntimeError), error
        assert home_place(lambda: anysync.run(get(session, url))) == "hello"
        home_place(lambda: anysync.run(session.close()))


@needs_aiohttp
@script
def test_03_an_aiohttp_session_of_a_runner_works_everywhere():
    with anysync.Runner() as runner, runner.enter(new_web_server()) as url:
        session = runner.run(new_session())
        places = scripts.plainly, scripts.in_loop, in_thread
        assert [place(lambda: runner.run(get(session, url))) for place in places] == ["hello"] * 3
        assert {place(lambda: runner.run(this_loop())) for place in places} == {runner.loop}
        runner.run(session.close())
