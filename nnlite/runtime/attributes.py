"""Base class that rejects misspelt attributes and wrong values, and a repr that shows the constructor call."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from inspect import signature
from typing import Any, ClassVar

from nnlite.runtime.errors import unknown


class KnownAttributes:
    """Setting an unknown attribute raises AttributeError, which lists the known names and suggests the nearest.

    The object's own methods, also those of a user's subclass, may add attributes.
    """

    #: by attribute: checks a value when it is set, and returns it, perhaps converted
    _checks: ClassVar[dict[str, Callable[[str, Any], Any]]] = {}
    #: how often a public attribute was set, of all objects that share this list
    _changes: ClassVar[list[int]] = [0]

    def __setattr__(self, name: str, value: Any) -> None:
        if name[0] == "_" and name in self.__dict__:
            super().__setattr__(name, value)
            return
        # only a method of the object, which has it as `self`, may add an attribute
        if not self._has(name) and sys._getframe(1).f_locals.get("self") is not self:
            raise AttributeError(str(unknown(f"attribute of {type(self).__name__}", name, self._settable())))
        if name in self._fixed():
            tensor = hasattr(self.__dict__.get(name), "data")
            instead = f"write into {name}.data, or call set_weights" if tensor else "make a new one"
            what = f"it unchanged: this {type(self).__name__} is built; {instead}"
            raise AttributeError(f"{name}: expected {what}. Received: {' '.join(repr(value).split()):.60}")
        of_class = getattr(type(self), name, None)
        if isinstance(of_class, property) and of_class.fset is None:
            meaning = f" ({of_class.__doc__.splitlines()[0].rstrip('.')})" if of_class.__doc__ else ""
            what = f"it unchanged: it is computed{meaning}"
            raise AttributeError(f"{name}: expected {what}. Received: {' '.join(repr(value).split()):.60}")
        check = self._checks.get(name)
        super().__setattr__(name, value if check is None else check(name, value))
        self._changes[0] += 1

    def _fixed(self) -> Collection[str]:
        """The attributes that can no longer be changed, because a change would have no effect."""
        return ()

    def _has(self, name: str) -> bool:
        return name in self.__dict__ or hasattr(type(self), name)

    def _settable(self) -> list[str]:
        """The public attributes that can be set."""
        of_classes = (
            name
            for cls in type(self).__mro__
            for name, value in vars(cls).items()
            if not callable(value) and not isinstance(value, classmethod) and getattr(value, "fset", True)
        )
        return list(dict.fromkeys(name for name in (*self.__dict__, *of_classes) if not name.startswith("_")))


def as_call(made: object, **shown: Any) -> str:
    """`Dense(units=3, name='first')`: the constructor call of an object, without arguments that have their default.

    The value of an argument is that in `shown`, or the attribute of the same name.
    """
    arguments = []
    for name, parameter in signature(type(made).__init__).parameters.items():
        text = repr(shown.get(name, getattr(made, name, parameter.default)))
        if text != repr(parameter.default):
            arguments.append(f"{name}={text}")
    return f"{type(made).__name__}({', '.join(arguments)})"
