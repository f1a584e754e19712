"""What objects that users change have in common: no attribute by a misspelt name or of any value, and their repr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from inspect import signature
from typing import Any, ClassVar

from nnlite.runtime.errors import unknown


class KnownAttributes:
    """Setting an attribute that is none raises AttributeError, with the names of those that are and the nearest one.

    An object's own methods make new ones, those of a user's subclass too.
    """

    #: by an attribute's name: what each value is that it is given, or an error that names it
    _checks: ClassVar[dict[str, Callable[[str, Any], Any]]] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        # who sets a new one is asked for no more than once an attribute: a method has the object as `self`
        if not self._has(name) and sys._getframe(1).f_locals.get("self") is not self:
            raise AttributeError(str(unknown(f"attribute of {type(self).__name__}", name, self._settable())))
        if name in self._fixed():
            array = hasattr(self.__dict__.get(name), "data")
            instead = f"write into {name}.data, or use set_weights" if array else "make a new one"
            what = f"{type(self).__name__} to keep what it was built with; {instead}"
            raise AttributeError(f"{name}: expected a {what}. Received: {' '.join(repr(value).split()):.60}")
        check = self._checks.get(name)
        super().__setattr__(name, value if check is None else check(name, value))

    def _fixed(self) -> Collection[str]:
        """The names of what can no longer be changed, because nothing would follow."""
        return ()

    def _has(self, name: str) -> bool:
        return name in self.__dict__ or hasattr(type(self), name)

    def _settable(self) -> list[str]:
        """The names of the public attributes that can be set."""
        of_classes = (
            name
            for cls in type(self).__mro__
            for name, value in vars(cls).items()
            if not callable(value) and not isinstance(value, classmethod) and getattr(value, "fset", True)
        )
        return list(dict.fromkeys(name for name in (*self.__dict__, *of_classes) if not name.startswith("_")))


def as_call(made: object, **shown: Any) -> str:
    """`Dense(units=3, name='first')`: the call that makes such an object, without what is left to its default.

    An argument is the attribute of its name, or what `shown` has in its place.
    """
    arguments = []
    for name, parameter in signature(type(made).__init__).parameters.items():
        text = repr(shown.get(name, getattr(made, name, parameter.default)))
        if text != repr(parameter.default):
            arguments.append(f"{name}={text}")
    return f"{type(made).__name__}({', '.join(arguments)})"
