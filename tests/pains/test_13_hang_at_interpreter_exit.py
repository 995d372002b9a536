"""A destructor or an exit callback calls when the loop's thread is gone: elsewhere that waits for ever."""

import time

import pytest
import scripts
from pytest_marks import of_cpython
from scripts import PYPY, run_source

SOURCE = """
import asyncio, atexit, builtins, time
import anysync
from scripts import in_loop, plainly, watch

watch()

async def one():
    await asyncio.sleep(0)
    return 1

class Filesystem:
    def __init__(self, name, call={place}, run=anysync.run, one=one, print=print):
        self.name, self.call, self.run, self.one, self.print = name, call, run, one, print

    def close(self):
        try:
            self.print(self.name, self.call(lambda: self.run(self.one())), flush=True)
        except RuntimeError as error:
            self.print(self.name, error, flush=True)

class DroppedFilesystem(Filesystem):
    __del__ = Filesystem.close

async def pending():
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await asyncio.sleep(0)
        print("pending task", flush=True)

async def leaves_a_task():
    global task
    task = asyncio.create_task(pending())
    await asyncio.sleep(0)

plainly(lambda: anysync.run(one()))
in_loop(lambda: anysync.run(one()))
{place}(lambda: anysync.run(leaves_a_task()))
builtins.kept_alive = DroppedFilesystem("destructor")
atexit.register(Filesystem("atexit").close)
print(time.monotonic())
"""


@pytest.mark.parametrize("place", ["plainly", "in_loop"])
def test_13_hang_at_interpreter_exit(place, tmp_path):
    """fsspec/gcsfs#1037, fsspec/filesystem_spec#1723, fsspec/s3fs#573, dask/distributed#8644."""
    done = run_source(SOURCE.format(place=place), tmp_path)
    took = time.monotonic()
    began, *lines = done.stdout.splitlines()
    assert (scripts.complaints(done), done.returncode) == ([], 0)
    assert took - float(began) < 3
    told = dict(line.rsplit(" ", 1) if line.endswith(" 1") else line.split(" ", 1) for line in lines)
    assert told["atexit"] == "1"
    assert told["pending"] == "task"
    if not PYPY:  # which runs no destructors at exit
        assert told["destructor"] == "1" or (
            place == "in_loop" and "needs a thread of its own" in told["destructor"]
        )


NEEDS_A_THREAD = """
import asyncio, atexit, builtins
from scripts import in_loop, watch

watch()

def starts_the_background_again():
    try:
        in_loop(lambda: anysync.run(one()))
    except RuntimeError:
        pass

atexit.register(starts_the_background_again)  # called after all that anysync registers
import anysync

async def one():
    await asyncio.sleep(0)
    return 1

@anysync.contextmanager
async def heart_beat():
    task = asyncio.create_task(asyncio.sleep(3600))
    await asyncio.sleep(0)
    yield
    task.cancel()

def enter(print=print):
    with heart_beat():
        pass
    print("left", flush=True)

def submit():
    anysync.wrap_coroutine(one()).submit().result()

def call_in_loop():
    in_loop(lambda: anysync.run(one()))

class Filesystem:
    def __init__(self, call, print=print):
        self.call, self.print = call, print

    def __del__(self):
        try:
            self.call()
        except RuntimeError as error:
            self.print(error, flush=True)

call_in_loop()
builtins.kept_alive = Filesystem({use})
"""


@of_cpython
@pytest.mark.parametrize("use", ["submit", "call_in_loop"])
def test_13_where_no_thread_can_start_the_error_says_so(use, tmp_path):
    """fsspec/gcsfs#1037: before Python 3.12, a thread that is started then never begins."""
    done = run_source(NEEDS_A_THREAD.format(use=use), tmp_path)
    assert (scripts.complaints(done), done.returncode) == ([], 0)
    assert done.stdout.endswith("can't create new thread at interpreter shutdown\n")


@of_cpython
def test_13_where_no_thread_can_start_what_needs_none_works(tmp_path):
    """fsspec/gcsfs#1037: a `with` whose tasks the helper would turn is entered and left all the same."""
    scripts.check(run_source(NEEDS_A_THREAD.format(use="enter"), tmp_path), "left\n")
