"""Old names of functions, classes and arguments, which keep working for one release with a DeprecationWarning."""

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


def renamed_names(module: str, names: Mapping[str, str]) -> Callable[..., Any]:
    """Returns a module's `__getattr__` that resolves old names with a DeprecationWarning.

    Args:
        module: name of the module that had the old names.
        names: {old name: new place}, as "keras_bot.models.create_model".
    """

    def __getattr__(name: str, stacklevel: int = 2) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warn(f"{module}.{name} is now {names[name]}", stacklevel)
        parent, _, attribute = names[name].rpartition(".")
        return getattr(importlib.import_module(parent), attribute)

    return __getattr__


def renamed_arguments(**names: str) -> Callable[[Callable[_P, None]], Callable[_P, None]]:
    """Returns a decorator of a constructor that also accepts old keywords, given as old="new".

    Raises:
        TypeError: when called, if an argument is passed under both names.
    """

    def decorate(init: Any) -> Any:
        @functools.wraps(init)
        def __init__(self, *args, **kwargs):
            owner = type(self).__name__
            for old in names.keys() & kwargs.keys():
                warn(f"{owner}({old}=…) is now {names[old]}")
                if names[old] in kwargs:
                    raise TypeError(f"{owner} received {old} and {names[old]}: the same argument. Drop {old}.")
                kwargs[names[old]] = kwargs.pop(old)
            init(self, *args, **kwargs)

        return __init__

    return decorate


def renamed_fields(**names: str) -> Callable[[type[_T]], type[_T]]:
    """Returns a decorator of a dataclass that also accepts old field names as keywords, given as old="new"."""

    def decorate(owner: Any) -> Any:
        owner.__init__ = renamed_arguments(**names)(owner.__init__)
        return owner

    return decorate


def renamed_attributes(**names: str) -> Callable[[Any, str], Any]:
    """Returns a class's `__getattr__` that reads attributes under their old names, given as old="new".

    Unlike properties, these names are not in `dir()`: Keras reads every attribute in it when it saves an object.
    """

    def __getattr__(self: object, name: str) -> Any:
        if name not in names:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        warn(f"{type(self).__name__}.{name} is now {names[name]}")
        return getattr(self, names[name])

    return __getattr__


def warn(message: str, stacklevel: int = 2) -> None:
    """Warns that a name is deprecated, at the line that calls the function that calls this one."""
    warnings.warn(f"{message}; the old name will be removed.", DeprecationWarning, stacklevel=stacklevel + 1)
