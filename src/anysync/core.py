"""The public names, where AnySync 1.0 had them, and `name`, which tells the core that runs."""

from typing import Literal

from . import *  # noqa: F403
from . import __all__ as _names, _core

#: "compiled", or "pure"
name: Literal["pure", "compiled"] = _core.name

__all__ = [*_names, "name"]  # pyright: ignore[reportUnsupportedDunderAll]
