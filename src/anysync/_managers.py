"""Context managers of both worlds."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import GenericAlias, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ._objects import Stepped, remedy

if TYPE_CHECKING:
    from ._on_asyncio import Session

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class AnySyncContextManager(
    Stepped,
    AbstractContextManager[R_co, "bool | None"],
    AbstractAsyncContextManager[R_co, "bool | None"],
):
    """An async context manager for both worlds: `async with` in async code, `with` in sync code.

    Subclass it with `__aenter__` and `__aexit__`, or get one from `contextmanager` or
    `wrap_async_context_manager`. In sync code both run in one task and one context, and what they
    started goes on during the body.
    """

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)

    def __enter__(self) -> R_co:
        if self._session is not None:
            raise RuntimeError(
                "this context manager is entered already: it must be left before it is entered again"
            )
        # no local variable: a traceback that holds this frame must not meet its error again
        return cast("R_co", self._enter_in(self._new_session(on_cancel=self.__aexit__))())

    def _enter_in(self, session: "Session") -> Callable[[], Any]:
        try:
            return self._step(session, self.__aenter__)
        except BaseException as error:
            if session.task is not None:  # entered just before the interrupt: nobody else would leave
                self._step(session, self.__aexit__, type(error), error, error.__traceback__, last=True)
            self._session = None
            raise

    def __exit__(
        self,
        typ: type[BaseException] | None = None,
        val: BaseException | None = None,
        tb: TracebackType | None = None,
        /,
    ) -> bool | None:
        session = self._session
        if session is None:
            raise RuntimeError("this context manager is not entered")
        return cast("bool | None", self._step(session, self.__aexit__, typ, val, tb, last=True)())


class WrappedContextManager(AnySyncContextManager[R]):
    def __init__(self, manager: AbstractAsyncContextManager[R, bool | None]) -> None:
        self._manager = manager

    async def __aenter__(self) -> R:
        return await self._manager.__aenter__()

    async def __aexit__(
        self,
        typ: type[BaseException] | None = None,
        val: BaseException | None = None,
        tb: TracebackType | None = None,
        /,
    ) -> bool | None:
        return await self._manager.__aexit__(typ, val, tb)


def wrap_async_context_manager(manager: AbstractAsyncContextManager[R, Any]) -> AnySyncContextManager[R]:
    """Make an async context manager usable from both worlds."""
    if isinstance(manager, AnySyncContextManager):
        return manager
    if not isinstance(manager, AbstractAsyncContextManager):
        raise TypeError(f"expected an async context manager, not {manager!r}: {remedy(manager)}")
    return WrappedContextManager(manager)
