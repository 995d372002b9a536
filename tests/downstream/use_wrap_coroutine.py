"""A library whose functions stay async inside: its public ones give coroutines of both worlds."""

from asyncio import gather, run
from contextvars import ContextVar, copy_context
from typing import TypedDict, assert_type

from anysync import AnySyncCoroutine, wrap_coroutine


class User(TypedDict):
    name: str
    admin: bool


tenant = ContextVar("tenant", default="nobody")


async def _load(name: str) -> User:
    tenant.set(name)
    return {"name": name, "admin": name == "ada"}


def user(name: str) -> AnySyncCoroutine[User]:
    if not name:
        raise ValueError("a user has a name")  # at the call, not when it is awaited
    return wrap_coroutine(_load(name))


async def admins(*names: str) -> list[bool]:
    return [assert_type(found, User)["admin"] for found in await gather(*map(user, names))]


context = copy_context()
assert assert_type(user("grace").run(context=context), User)["name"] == "grace"
assert (context[tenant], tenant.get()) == ("grace", "nobody")
assert run(admins("ada", "grace")) == [True, False]
