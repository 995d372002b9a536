"""The public names, where AnySync 1.0 had them, and `name`: which core runs, "pure" or "compiled"."""

from . import *  # noqa: F403
from . import __all__ as _names
from ._core import name

__all__ = [*_names, "name"]  # pyright: ignore[reportUnsupportedDunderAll]
