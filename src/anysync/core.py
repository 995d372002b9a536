"""The public names, where AnySync 1.0 had them, and `name`, which tells the core that runs."""

from typing import TYPE_CHECKING, Literal

from . import *  # noqa: F403
from . import __all__ as _names
from . import _core

if TYPE_CHECKING:
    #: "pure", or "compiled"
    name: Literal["pure", "compiled"]

__all__ = [*_names, "name"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(attribute: str) -> str:
    if attribute == "name":
        return _core.name
    raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
