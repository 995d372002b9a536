"""Tracebacks: one frame of ours between the caller's and the user's, and nothing of an exception is lost."""

import os
import traceback

import anyio
import pytest
from places import error_of, in_async_code
from pytest_marks import every_row, every_step, on_both
from scripts import COMPILED
from steps import ROWS, STEPS, Oops, Stop, bare

import anysync

OURS = os.path.dirname(anysync.__file__), "anysync_ext"  # where the compiled core says it is
FUTURES = ["result", "__get_result"]  # of concurrent.futures

suspended_or_not = pytest.mark.parametrize("suspended", [False, True])


def failing(error, suspended):
    async def fails():
        if suspended:
            await anyio.sleep(0)
        await innermost(error)  # the user's line

    return fails


async def innermost(error):
    raise error


def error_in(row, step, fails):
    return ROWS[row](lambda api: error_of(lambda: STEPS[step](api, fails)))


def error_in_async_code(step, fails):
    return error_of(lambda: in_async_code(vars(bare)[step], fails))


def names_in(error):
    """Return the names of the functions in the traceback, and how many of the frames are ours."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    codes = [code for code in codes if code.co_filename not in COMPILED]
    others = [code.co_name for code in codes if os.path.dirname(code.co_filename) not in OURS]
    return others, len(codes) - len(others)


def names_from(step, error):
    """Return the names from that of the step on."""
    names, ours = names_in(error)
    return names[len(names) - names[::-1].index(step) - 1 :], ours


@on_both
@every_row
@every_step
@suspended_or_not
def test_a_traceback_has_the_frames_that_it_has_in_async_code_and_one_of_ours(row, step, suspended):
    for kind in Oops, Stop, KeyboardInterrupt:
        names, ours = names_from(step, error_in(row, step, failing(kind(), suspended)))
        expected, _ = names_from(step, error_in_async_code(step, failing(kind(), suspended)))
        if step == "result_of_submit":
            expected[1:1] = FUTURES
        assert names == expected
        assert ours <= 1


@on_both
@every_row
@every_step
@suspended_or_not
def test_a_traceback_shows_the_line_of_the_users_await(row, step, suspended):
    error = error_in(row, step, failing(Oops("message"), suspended))
    text = "".join(traceback.format_exception(error))
    assert text.count("await innermost(error)  # the user's line\n") == 1
    assert text.endswith("Oops: message\n")


@on_both
@every_row
@every_step
def test_an_exception_that_is_raised_again_and_again_grows_as_little_as_python_lets_it(row, step):
    async def raises_afresh():
        raise error.with_traceback(None)

    async def raises():
        raise error

    error, lengths = Oops(), []

    def raise_them(api):
        for _ in range(20):
            error_of(lambda: STEPS[step](api, raises_afresh))
            lengths.append(len(list(traceback.walk_tb(error.__traceback__))))
        assert len(set(lengths)) == 1
        error.__traceback__ = None
        for _ in range(20):
            error_of(lambda: STEPS[step](api, raises))

    ROWS[row](raise_them)
    names, ours = names_in(error)
    assert names.count(step) == names.count("raises") == 20
    assert ours <= 20


def raising_from(inner, error):
    async def fails():
        try:
            raise inner
        except KeyError:
            raise error from inner

    return fails


def raising_from_none(inner, error):
    async def fails():
        try:
            raise inner
        except KeyError:
            raise error from None

    return fails


def raising_in_context(inner, error):
    async def fails():
        try:
            raise inner
        except KeyError:
            raise error  # noqa: B904

    return fails


@on_both
@every_row
@every_step
@pytest.mark.parametrize("handling", [False, True])
def test_cause_context_notes_and_suppression_survive(row, step, handling):
    def call(api, fails):
        if not handling or step == "result_of_submit":  # where a future raises it, with a context of its own
            return error_of(lambda: STEPS[step](api, fails))
        try:
            raise ValueError("which the caller handles")
        except ValueError:
            return error_of(lambda: STEPS[step](api, fails))

    def survivors(api):
        for raising in raising_from, raising_from_none, raising_in_context:
            inner, error = KeyError(), Oops()
            error.add_note("note")
            raised = call(api, raising(inner, error))
            yield (
                raised is error,
                raised.__notes__ == ["note"],
                raised.__context__ is inner,
                raised.__cause__ is inner,
                raised.__suppress_context__,
            )

    assert ROWS[row](lambda api: list(survivors(api))) == [
        (True, True, True, True, True),
        (True, True, True, False, True),
        (True, True, True, False, False),
    ]
