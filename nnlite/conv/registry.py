"""Which algorithms there are.

The modules of the built-in ones are imported when first asked for, as are those of
installed packages: a class derived from Algorithm under the entry-point group ENTRY_POINTS is an algorithm of the
entry point's name.
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple

from nnlite.conv import parameters
from nnlite.conv.algorithm import Algorithm
from nnlite.runtime.errors import boolean, unknown

#: what installed packages list their algorithms under
ENTRY_POINTS = "nnlite.algorithms"
#: name -> "module:class", in the order in which they are explained, slowest first
_BUILT_IN = {
    "naive": "nnlite.conv.naive:Naive",
    "strided_view": "nnlite.conv.strided_view:StridedView",
    "theano2017": "nnlite.conv.theano2017:Theano2017",
    "im2col": "nnlite.conv.im2col:Im2col",
    "kn2row": "nnlite.conv.kn2row:Kn2row",
    "fft": "nnlite.conv.fft:Fft",
    "numba": "nnlite.conv.numba_loops:NumbaLoops",
    "numba_blocked": "nnlite.conv.numba_blocked:NumbaBlocked",
    "numba_direct": "nnlite.conv.numba_direct:NumbaDirect",
    "direct": "nnlite.conv.direct:Direct",
    "lanes": "nnlite.conv.lanes:Lanes",
    "grouped": "nnlite.conv.grouped:GroupedLanes",
    "winograd": "nnlite.conv.winograd:Winograd",
}


class Choice(NamedTuple):
    """The algorithm that computes a convolution, and why it is that one, in words."""

    name: str
    reason: str


#: those that were registered, and, apart from them, the built-in and installed ones that were asked for so far
_registered: dict[str, Algorithm] = {}
_loaded: dict[str, Algorithm] = {}
_version = 0


def names() -> list[str]:
    """The names of all algorithms: built in, of installed packages, and registered."""
    return list(dict.fromkeys([*_BUILT_IN, *_installed(), *_registered]))


def get(name: str) -> Algorithm:
    """The algorithm of that name, which may end in values of its parameters: "winograd(least_tiles=24)".

    Raises ValueError, listing the known ones, if there is none of that name, or no such value of a parameter. Raises
    ImportError if it is an installed package's that cannot be loaded.
    """
    if not isinstance(name, str):
        raise unknown("algorithm", name, names())
    if name in _registered:
        return _registered[name]
    if name not in _loaded:
        if name in _BUILT_IN:
            module, _, class_name = _BUILT_IN[name].partition(":")
            _loaded[name] = getattr(import_module(module), class_name)()
        elif name in _installed():
            _loaded[name] = _load(_installed()[name])
        else:
            base, given = parameters.split_call(name)
            if not given:
                raise unknown("algorithm", name, names())
            return _with_parameters(get(base), given)
    return _loaded[name]


@lru_cache(maxsize=512)
def _with_parameters(base: Algorithm, given: str) -> Algorithm:
    return base.with_parameters(**parameters.read(given, base.parameters))


@cache
def _installed() -> dict[str, EntryPoint]:
    """name -> entry point of the algorithms of installed packages; those built in keep their names."""
    return {e.name: e for e in entry_points(group=ENTRY_POINTS) if e.name not in _BUILT_IN}


def _load(entry: EntryPoint) -> Algorithm:
    package = entry.dist.name if entry.dist else "an installed package"
    try:
        algorithm = entry.load()()
    except Exception as error:
        raise ImportError(f"algorithm {entry.name!r} of {package}: {type(error).__name__}: {error}") from error
    if not isinstance(algorithm, Algorithm) or algorithm.name != entry.name:
        raise ImportError(
            f"algorithm {entry.name!r} of {package}: expected a class derived from nn.conv.Algorithm with that name. "
            f"Received: {algorithm!r}"
        )
    return algorithm


def register(algorithm: Algorithm, *, replace: bool = False) -> Algorithm:
    """Add an algorithm under its `name`; `replace=True` to put it in the place of one of that name."""
    global _version
    if not isinstance(algorithm, Algorithm):
        raise TypeError(f"algorithm: expected an instance of nn.conv.Algorithm. Received: {algorithm!r}")
    name = getattr(algorithm, "name", None)
    if not isinstance(name, str) or not name or name == "auto":
        expected = f'a line name = "..." in class {type(algorithm).__name__}, other than "auto"'
        raise ValueError(f"algorithm: expected {expected}. Received: {name!r}")
    if not boolean("replace", replace) and name in names():
        raise ValueError(f"algorithm: {name!r} is registered already; pass replace=True to replace it")
    if type(algorithm).forward is Algorithm.forward:
        raise ValueError(f"algorithm: expected {name!r} to define forward(x, weight, geometry). Received: none")
    _registered[name] = algorithm
    _version += 1
    return algorithm


def unregister(name: str) -> None:
    """Take a registered algorithm out again; a built-in one that it had replaced is back.

    Raises ValueError if none of that name was registered: what is built in, or an installed package's, stays.
    """
    global _version
    if not isinstance(name, str) or name not in _registered:
        if name in names():
            whose = "is built in" if name in _BUILT_IN else "an installed package offers"
            raise ValueError(f"name: expected an algorithm that was registered. Received: {name!r}, which {whose}")
        raise unknown("registered algorithm", name, _registered)
    del _registered[name]
    _version += 1


def version() -> int:
    """How often an algorithm was registered or taken out."""
    return _version
