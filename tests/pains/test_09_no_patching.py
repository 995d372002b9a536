"""What works by patching asyncio does not work on uvloop, and changes asyncio for everybody.

erdewit/nest_asyncio#49 and #53, MagicStack/uvloop#405, run-llama/llama_index#17263. Here nothing is
patched, ever.
"""

import asyncio
from importlib.util import find_spec
from pathlib import Path

import pytest
from scripts import check, run_source, script

import anysync

needs_uvloop = pytest.mark.skipif(
    not find_spec("uvloop"), reason="uvloop is not installed, or not for this Python"
)


@anysync.coroutine
async def one():
    await asyncio.sleep(0)
    return 1


@anysync.generator
async def ones():
    yield await one()
    yield await one()


@anysync.contextmanager
async def echo_server():
    async def echo(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()


@anysync.coroutine
async def ask(address):
    reader, writer = await asyncio.open_connection(*address[:2])
    writer.write(b"hello\n")
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return line


def every_use_works():
    assert one().run() == one().run(timeout=60) == one().submit().result() == 1
    assert list(ones()) == [1, 1]
    with echo_server() as address:
        assert ask(address).run() == b"hello\n"


@needs_uvloop
@pytest.mark.parametrize("ours_too", [False, True])
@script
def test_09_sync_code_inside_uvloop_calls_async_code(ours_too):
    import uvloop

    async def main():
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert isinstance(loop, uvloop.Loop)
        every_use_works()
        assert asyncio.get_running_loop() is loop
        assert asyncio.current_task() is task
        async with echo_server() as address:
            assert await ask(address) == b"hello\n"
        return await asyncio.create_task(one().coro)

    if ours_too:
        anysync.configure(backend_options={"use_uvloop": True})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == 1
    assert uvloop.run(main()) == 1
    every_use_works()


NO_PATCH = """
import asyncio, concurrent.futures.thread, contextvars, selectors, signal, socket, sys, threading

PACKAGES = {"asyncio", "_asyncio", "concurrent", "contextvars", "selectors", "signal", "socket", "threading"}

def functions_and_classes():
    found = {}
    for module, namespace in [(name, vars(module)) for name, module in sys.modules.items()]:
        if module.partition(".")[0] in PACKAGES:
            for name, value in namespace.items():
                if callable(value):
                    found[module, name] = value
                if isinstance(value, type):
                    found |= {(module, name, inner): it for inner, it in vars(value).items()}
    return found

def patched():
    after = functions_and_classes()
    return [name for name, value in before.items() if after.get(name) is not value]

before = functions_and_classes()
assert len(before) > 1000
sys.path.append(FOLDER)
import test_09_no_patching as uses
assert patched() == [], patched()
for _ in range(2):
    uses.every_use_works()
    assert patched() == [], patched()
    scripts.in_loop(uses.every_use_works)
    assert patched() == [], patched()
if "_asyncio" in sys.modules:  # which PyPy has not
    assert asyncio.Task is sys.modules["_asyncio"].Task
print("nothing is patched")
"""


def test_09_asyncio_is_as_it_was_after_the_import_and_after_every_use(tmp_path):
    source = NO_PATCH.replace("FOLDER", repr(str(Path(__file__).parent)))
    check(run_source(f"scripts.watch(){source}", tmp_path), "nothing is patched\n")
