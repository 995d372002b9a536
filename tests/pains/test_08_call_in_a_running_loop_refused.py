"""A sync call inside a running loop is refused: "This event loop is already running".

django/asgiref#56, django/channels#1026, pydantic/pydantic-ai#130, microsoft/playwright-python#462: notebooks,
pytest-asyncio and ASGI apps run sync code in a loop. One program is to print the same in all places.
"""

import asyncio
import contextlib
import io
import sys
import tempfile
from importlib.util import find_spec

import pytest
from scripts import script

PROGRAM = """
import asyncio, contextvars, gc, sys
import anysync

var = contextvars.ContextVar("var", default="unset")

def attempt(call):
    try:
        return call()
    except BaseException as error:
        return repr(error), repr(error.__cause__)

@anysync.coroutine
async def double(x):
    await asyncio.sleep(0)
    return 2 * x

@anysync.coroutine
async def fail():
    await double(1)
    raise LookupError("lost") from KeyError("key")

@anysync.coroutine
async def endless(log):
    try:
        await asyncio.Event().wait()
    finally:
        log.append(await double("clean"))

@anysync.coroutine
async def nested(x):
    return double(x).run() + await double(x)

@anysync.coroutine
async def seen():
    value = var.get()
    var.set("inside")
    return value

@anysync.generator
async def echo():
    reply = "ready"
    try:
        while True:
            try:
                reply = await double((yield reply))
            except LookupError as error:
                reply = error.args
    finally:
        print("echo closed", await double(1))

@anysync.iterator
async def count(n):
    for i in range(n):
        async with asyncio.timeout(60):
            yield await double(i)

@anysync.contextmanager
async def ticking():
    async def tick():
        ticks.append(await double("tick"))

    ticks = []
    async with asyncio.TaskGroup() as group:
        group.create_task(tick())
        try:
            yield ticks
        except LookupError as error:
            print("suppressed", error.args)
    print("left with", ticks)

print("run", double(1).run(), double(2).run(timeout=60), anysync.run(asyncio.sleep(0, "slept")))
print("raised", attempt(fail().run))
log = []
print("too late", attempt(lambda: endless(log).run(timeout=0)), log)
print("submitted", double(3).submit().result(), attempt(fail().submit().result))
print("nested", nested(1).run())

var.set("outside")
context = contextvars.copy_context()
print("context", seen().run(), var.get(), seen().run(context=context), context[var])

generator = echo()
print("generator", next(generator), generator.send(4), generator.throw(LookupError("thrown")))
generator.close()
print("closed", attempt(lambda: next(generator)))
for x in echo():
    print("break at", x)
    break
if sys.implementation.name == "pypy":
    gc.collect()
print("iterator", list(count(3)), sum(count(4)))

with ticking() as ticks:
    print("body", double(5).run())
    raise LookupError("body")

async def raw():
    yield 1
    yield 2

print("wrapped", list(anysync.wrap_async_generator(raw())), anysync.wrap_coroutine(asyncio.sleep(0, 6)).run())

with anysync.Runner() as runner:
    print("runner", runner.run(double(7)), list(runner.iterate(raw())))
"""

PRINTED = """\
run 2 4 slept
raised ("LookupError('lost')", "KeyError('key')")
too late ("TimeoutError('the coroutine did not finish within 0 seconds')", 'CancelledError()') ['cleanclean']
submitted 6 ("LookupError('lost')", "KeyError('key')")
nested 4
context outside outside outside inside
generator ready 8 ('thrown',)
echo closed 2
closed ('StopIteration()', 'None')
break at ready
echo closed 2
iterator [0, 2, 4] 12
body 10
suppressed ('body',)
left with ['ticktick']
wrapped [1, 2] 6
runner 14 [1, 2]
"""


@script(out=PRINTED)
def test_08_the_program_in_plain_code():
    exec(PROGRAM, {})


@script(out=PRINTED)
def test_08_the_program_inside_asyncio_run():
    async def main():
        exec(PROGRAM, {})
        await asyncio.sleep(0)

    asyncio.run(main())


@script(out=PRINTED)
def test_08_the_program_inside_trio():
    """What is asyncio's says so there."""
    import trio

    program = PROGRAM
    for call in 'anysync.run(asyncio.sleep(0, "slept")', "anysync.wrap_coroutine(asyncio.sleep(0, 6)).run(":
        program = program.replace(call, f"{call}, backend='asyncio'".replace("(, ", "("))
    for decorator in "coroutine", "generator", "iterator", "contextmanager":
        program = program.replace(f"@anysync.{decorator}", f'@anysync.{decorator}(backend="asyncio")')

    async def main():
        exec(program, {})
        await trio.sleep(0)

    trio.run(main)


@script(out=PRINTED)
def test_08_the_program_in_a_coroutine_of_ours():
    import anysync

    async def main():
        exec(PROGRAM, {})
        await asyncio.sleep(0)

    anysync.run(main())


NOTEBOOK = [
    ("import faulthandler; faulthandler.dump_traceback_later(15, exit=True, file=2)", ""),
    ("%autoawait", "IPython autoawait is `on`, and set to use `asyncio`\n"),
    ("import asyncio; print(asyncio.get_running_loop().is_running())", "True\n"),
    (PROGRAM, PRINTED),
    ("print(await double(8), [x async for x in count(2)], double(9).run())", "16 [0, 2] 18\n"),
    (PROGRAM, PRINTED),
    ("faulthandler.cancel_dump_traceback_later()", ""),
]


@pytest.mark.skipif(not find_spec("ipykernel"), reason="ipykernel is not installed")
@script
def test_08_the_program_in_a_notebook():
    from jupyter_client.manager import KernelManager

    def execute(cell):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            reply = client.execute_interactive(cell, timeout=30, allow_stdin=False)
        return reply["content"]["status"], out.getvalue()

    with tempfile.TemporaryFile("w+") as kernels_stderr:
        manager = KernelManager()
        manager.start_kernel(stderr=kernels_stderr)
        try:
            client = manager.blocking_client()
            client.start_channels()
            client.wait_for_ready(timeout=30)
            for cell, printed in NOTEBOOK:
                assert execute(cell) == ("ok", printed)
            client.stop_channels()
        except BaseException:
            kernels_stderr.seek(0)
            sys.stderr.write(kernels_stderr.read())
            raise
        finally:
            manager.shutdown_kernel(now=True)
