"""A newer Python breaks what swaps its tasks, moves its current task, or replaces its functions.

explodinggradients/ragas#2259 (`loop_factory`, on Python 3.12 and newer), seleniumbase/SeleniumBase#4302
("Timeout should be used inside a task", on 3.14), confident-ai/deepeval#2857. What asyncio
offers works on every Python.
"""

import asyncio
from importlib.util import find_spec

import pytest
import scripts
from scripts import script

import anysync

needs_aiohttp = pytest.mark.skipif(not find_spec("aiohttp"), reason="aiohttp is not installed")
places = pytest.mark.parametrize("place", ["plainly", "in_loop"])


@anysync.coroutine
async def everything(suspended):
    """Use all that asks for the current task, before the first suspension or after it."""
    if suspended:
        await asyncio.sleep(0)
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert isinstance(task, asyncio.Task)
    assert task.get_loop() is loop
    assert asyncio.all_tasks() >= {task}
    async with asyncio.timeout(60):
        async with asyncio.TaskGroup() as group:
            child = group.create_task(asyncio.sleep(0, "child"))
            assert asyncio.all_tasks() >= {task, child}
    try:
        async with asyncio.timeout(0):
            await loop.create_future()
    except TimeoutError:
        assert task.cancelling() == 0
    assert await asyncio.wait_for(asyncio.sleep(0, "waited"), 60) == "waited"
    assert await asyncio.to_thread(int) == 0
    assert asyncio.current_task() is task
    return child.result()


@places
@script
def test_10_a_call_has_all_that_asks_for_the_current_task(place):
    call = lambda: [everything(suspended).run() for suspended in (False, True)]  # noqa: E731
    assert getattr(scripts, place)(call) == ["child"] * 2


@pytest.mark.parametrize("debug", [False, True])
@script
def test_10_the_callers_task_is_the_same_after_a_call(debug):
    @anysync.coroutine
    async def current():
        return asyncio.current_task()

    async def main():
        task = asyncio.current_task()
        async with asyncio.timeout(60) as timeout, asyncio.TaskGroup() as group:
            for suspended in False, True:
                assert everything(suspended).run() == "child"
                assert asyncio.current_task() is task
                assert current().run() is not task
                assert await current() is task
                assert asyncio.current_task() is task
            child = group.create_task(everything(True).coro)
            await asyncio.sleep(0)
            assert asyncio.current_task() is task
            timeout.reschedule(None)
        assert asyncio.all_tasks() == {task}
        return await child

    with asyncio.Runner(debug=debug, loop_factory=asyncio.SelectorEventLoop) as runner:
        assert runner.run(main()) == "child"
    assert anysync.run(main()) == "child"
    assert scripts.in_loop(lambda: anysync.run(main())) == "child"


@needs_aiohttp
@places
@script
def test_10_aiohttp_works_with_its_timeouts(place):
    import aiohttp
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

    @anysync.contextmanager
    async def session():
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
            yield session

    @anysync.coroutine
    async def get(session, url):
        async with asyncio.timeout(60), session.get(url) as response:
            return await response.text()

    def call():
        with web_server() as url, session() as client:
            assert [get(client, url).run() for _ in range(2)] == ["hello"] * 2
            assert get(client, url).run(timeout=60) == "hello"

    getattr(scripts, place)(call)
