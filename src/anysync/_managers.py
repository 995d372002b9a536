"""Context managers of both worlds."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import GenericAlias, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from ._objects import Stepped, Steps, check_context, remedy

if TYPE_CHECKING:
    from contextvars import Context

    from typing_extensions import TypeVar as TypeVarWithDefault

    from ._host import Host

    E_co = TypeVarWithDefault("E_co", covariant=True, bound=bool | None, default=bool | None)
else:
    E_co = TypeVar("E_co", covariant=True)

E = TypeVar("E", bound=bool | None)
R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class AnySyncContextManager(
    Stepped,
    AbstractContextManager[R_co, E_co],
    AbstractAsyncContextManager[R_co, E_co],
):
    """An async context manager for both worlds: `async with` in async code, `with` in sync code.

    Subclass it with `__aenter__` and `__aexit__`, or get one from `contextmanager` or
    `wrap_async_context_manager`. In sync code both run in one task and one context, and what they
    started goes on during the body. Type checkers take exceptions to be suppressed only if the second type
    parameter, what `__aexit__` returns, is `bool`.
    """

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)

    __anysync_steps_of_manager__: Any = None  # Steps

    def __enter__(self) -> R_co:
        # no local variable: a traceback that holds this frame must not meet its error again
        return cast("R_co", _enter(self)())

    def __exit__(
        self,
        typ: type[BaseException] | None = None,
        val: BaseException | None = None,
        tb: TracebackType | None = None,
        /,
    ) -> E_co:
        steps = _steps(self)
        if steps.session is None:
            raise RuntimeError("this context manager is not entered")
        try:
            return cast("E_co", steps.step(self.__aexit__, (typ, val, tb), last=True)())
        except BaseException as error:
            if val is not None:
                _set_context(error, val)
            raise


def _set_context(error: BaseException, handled: BaseException) -> None:
    """Have `error` tell what was handled when it came, as Python has it where one thread does both."""
    told = _told_by(error)
    if told.keys().isdisjoint(_told_by(handled)):
        last = error
        for _ in told:  # a chain may be a circle
            last = last if last.__context__ is None else last.__context__
        # an assignment is what a frozen dataclass refuses
        vars(BaseException)["__context__"].__set__(last, handled)


def _told_by(error: BaseException) -> dict[int, BaseException]:
    """Return `error`, and all that its traceback shows beside it, by their `id`."""
    told: dict[int, BaseException] = {}
    left = [error]
    while left:
        one = left.pop()
        if id(one) not in told:
            told[id(one)] = one
            left += [other for other in (one.__cause__, one.__context__) if other is not None]
            if isinstance(one, BaseExceptionGroup):
                left += cast("BaseExceptionGroup[BaseException]", one).exceptions
    return told


def _steps(manager: AnySyncContextManager[Any]) -> Steps:
    if manager.__anysync_steps_of_manager__ is None:  # also if frozen, and if several threads come here
        vars(manager).setdefault("__anysync_steps_of_manager__", Steps())
    return cast("Steps", manager.__anysync_steps_of_manager__)


def _enter(manager: AnySyncContextManager[Any]) -> Callable[[], Any]:
    """Enter `manager` in a session of its own; return what returns or raises the outcome."""
    steps = _steps(manager)
    if steps.session is not None or not steps.begin(on_cancel=manager.__aexit__):
        gone = None if steps.session is None else steps.session.host.gone
        raise RuntimeError(
            gone or "this context manager is entered already: leave it before it is entered again"
        )
    session = steps.session
    try:
        return steps.step(manager.__aenter__)
    except BaseException as error:
        if session is not None and steps.session is session:  # else this one is another thread's
            if session.task is not None:  # entered just before the interrupt: nobody else would leave
                steps.step(manager.__aexit__, (type(error), error, error.__traceback__), last=True)
            steps.end()
        raise


class WrappedContextManager(AnySyncContextManager[R, E]):
    def __init__(self, manager: AbstractAsyncContextManager[R, E]) -> None:
        self._manager = manager

    def bind(self, choose_host: "Callable[[], Host]", context: "Context | None") -> Self:
        """Have enter and exit run where `choose_host` says, in `context`."""
        check_context(context)
        steps = _steps(self)
        steps.choose_host, steps.context = choose_host, context
        return self

    # no coroutines of ours, which would be frames in tracebacks
    def __aenter__(self) -> Any:
        return self._manager.__aenter__()

    def __aexit__(
        self,
        typ: type[BaseException] | None = None,
        val: BaseException | None = None,
        tb: TracebackType | None = None,
        /,
    ) -> Any:
        return self._manager.__aexit__(typ, val, tb)


def wrap_async_context_manager(manager: AbstractAsyncContextManager[R, E]) -> AnySyncContextManager[R, E]:
    """Make an async context manager usable from both worlds."""
    if isinstance(manager, AnySyncContextManager):
        return manager
    if not isinstance(manager, AbstractAsyncContextManager):
        raise TypeError(f"expected an async context manager, not {manager!r}: {remedy(manager)}")
    return WrappedContextManager(manager)
