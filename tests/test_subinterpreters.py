"""Subinterpreters: isolated ones, which have a GIL of their own and no daemon threads, and the old kind."""

import os
import sys
import textwrap

import pytest
from scripts import check, run_source

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="all share one GIL and everything else")

#: How a process runs code in subinterpreters, to the end of each. It ends without a clean-up of its own, in
#: which CPython 3.12.1 crashes once an isolated one has imported asyncio.
PROGRAM = """
import os
import threading

def run(kind, code):
    if sys.version_info < (3, 13):
        import _xxsubinterpreters as interpreters
        interpreter = interpreters.create(isolated=kind == "isolated")
        interpreters.run_string(interpreter, code)
    else:
        import _interpreters as interpreters
        interpreter = interpreters.create(kind)
        failure = interpreters.exec(interpreter, code)
        assert failure is None, failure.errdisplay
    interpreters.destroy(interpreter)

def native_threads():
    return len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 0

scripts.watch()
{before}
threads, native = threading.enumerate(), native_threads()
for kind, code in {runs!r}:
    run(kind, code)
while native_threads() > native:  # the kernel may be the last to know that a thread has ended
    pass
assert threading.enumerate() == threads
print("end")
sys.stdout.flush()
os._exit(0)
"""

#: What subinterpreters have at hand.
HELPERS = """
import asyncio, threading
import anysync
from anysync import anysync as both_worlds, contextmanager, core

anysync.configure(backend_options={"debug": False})
kept_alive = anysync.kept_alive = []

def say(*words):
    print(*words, flush=True)

def in_loop(function):
    async def main():
        return function()
    return asyncio.run(main())

@both_worlds
async def eager(value):
    return value

@both_worlds
async def works(value):
    await asyncio.sleep(0)
    return value

@both_worlds
async def count(n):
    try:
        for i in range(n):
            await asyncio.sleep(0)
            yield i
    finally:
        await asyncio.sleep(0)
        say("closed")

@contextmanager
async def manager():
    task = asyncio.create_task(asyncio.sleep(3600))
    try:
        yield "entered"
    finally:
        task.cancel()
        await asyncio.wait([task])
        say("left")
"""

CALLS = """
def calls():
    assert eager(1).run() == works(1).run() == 1
    assert list(count(3)) == [0, 1, 2]
    with manager() as entered:
        assert entered == "entered"
        assert works(2).run() == works(2).submit().result() == 2
"""


def program(*codes, kind="isolated", before=""):
    """Return a program that runs codes, each in a subinterpreter of its own, one after the other."""
    runs = [(kind, HELPERS + textwrap.dedent(code)) for code in codes]
    return PROGRAM.format(before=textwrap.dedent(before), runs=runs)


@pytest.fixture(autouse=True)
def not_only_the_compiled_core(monkeypatch):
    """The compiled one serves only one interpreter of a process."""
    if os.environ.get("ANYSYNC_EXTENSION") == "1":
        monkeypatch.delenv("ANYSYNC_EXTENSION")


kinds = pytest.mark.parametrize("kind", ["isolated", "legacy"])


@kinds
def test_plain_calls(tmp_path, kind):
    check(run_source(program(CALLS + "calls()", kind=kind), tmp_path), "closed\nleft\nend\n")


@kinds
def test_calls_in_a_loop(tmp_path, kind):
    code = CALLS + "in_loop(calls)\nin_loop(calls)"
    check(run_source(program(code, kind=kind), tmp_path), "closed\nleft\n" * 2 + "end\n")


@kinds
def test_nested_calls(tmp_path, kind):
    code = """
    @both_worlds
    async def nests(depth):
        await asyncio.sleep(0)
        return nests(depth - 1).run() if depth else threading.current_thread().name

    assert nests(0).run() == "MainThread"
    assert in_loop(nests(0).run) == nests(1).run() == "anysync background"
    assert nests(2).run() == nests(3).run() == "anysync nested"
    """
    check(run_source(program(code, kind=kind), tmp_path), "end\n")


@kinds
def test_calls_of_several_threads(tmp_path, kind):
    code = """
    from concurrent.futures import ThreadPoolExecutor

    def call(value):
        return in_loop(works(value).run), works(value).run()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(call, range(40))) == [(value, value) for value in range(40)]
    """
    check(run_source(program(code, kind=kind), tmp_path), "end\n")


@kinds
def test_its_end_closes_what_is_open(tmp_path, kind):
    code = """
    @both_worlds
    async def waits(name):
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            say(name)

    def leave_open():
        generator, entered = count(3), manager()
        kept_alive.extend([generator, entered, waits("submitted").submit()])
        next(generator)
        entered.__enter__()

    leave_open()
    in_loop(leave_open)
    runner = anysync.Runner()
    kept_alive.extend([runner, runner.submit(waits("runner's"))])
    assert runner.run(works(1)) == 1
    """
    done = run_source(program(code, kind=kind), tmp_path)
    check(done, done.stdout)
    assert sorted(done.stdout.split()) == sorted(["closed", "left", "submitted"] * 2 + ["runner's", "end"])


@kinds
def test_its_threads_make_calls_to_their_own_end(tmp_path, kind):
    code = """
    ending = threading.Event()
    threading._register_atexit(ending.set)

    def late():
        ending.wait()
        say(works(1).run(), in_loop(works(2).run))

    in_loop(works(0).run)
    threading.Thread(target=late).start()
    """
    check(run_source(program(code, kind=kind), tmp_path), "1 2\nend\n")


def test_a_thread_that_a_coroutine_starts_is_no_daemon(tmp_path):
    code = """
    @both_worlds
    async def starts():
        thread = threading.Thread(target=say, args=["started"])
        thread.start()
        return thread.daemon

    assert in_loop(starts().run) is False
    """
    check(run_source(program(code), tmp_path), "started\nend\n")


@kinds
def test_one_after_the_other(tmp_path, kind):
    code = CALLS + "calls()\nin_loop(calls)"
    check(run_source(program(*[code] * 3, kind=kind), tmp_path), "closed\nleft\n" * 6 + "end\n")


@kinds
def test_beside_the_main_interpreter(tmp_path, kind):
    before = """
    import anysync
    import asyncio

    def works():
        return anysync.run(asyncio.sleep(0, 1))

    async def works_in_loop():
        return works()

    assert works() == asyncio.run(works_in_loop()) == 1
    """
    code = CALLS + "calls()\nin_loop(calls)"
    done = run_source(program(code, kind=kind, before=before), tmp_path)
    check(done, "closed\nleft\n" * 2 + "end\n")


def test_the_pure_core_serves_where_the_compiled_one_cannot(tmp_path, monkeypatch):
    monkeypatch.delenv("ANYSYNC_EXTENSION", raising=False)
    check(run_source(program("say(core.name)"), tmp_path), "pure\nend\n")


def test_who_asks_for_the_compiled_core_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYSYNC_EXTENSION", "1")
    code = """
    try:
        import anysync
    except ImportError as error:
        assert "ANYSYNC_EXTENSION=1 asks for the compiled core" in str(error), error
    else:
        raise AssertionError(anysync.core.name)
    """
    source = PROGRAM.format(before="", runs=[("isolated", textwrap.dedent(code))])
    check(run_source(source, tmp_path), "end\n")


@pytest.mark.parametrize("before_its_end", ["pass", "works(1).run()", "in_loop(works(1).run)"])
def test_a_call_after_its_end_has_begun_does_no_harm(tmp_path, before_its_end):
    code = f"""
    import atexit

    def last():
        assert works(1).run() == 1
        try:
            in_loop(works(1).run)
        except RuntimeError as error:
            assert "needs a thread of its own" in str(error), error

    atexit.register(last)
    {before_its_end}
    atexit.register(last)
    """
    check(run_source(program(code), tmp_path), "end\n")
