"""The explanation, `nn.explain(model, ...)` and `nnlite explain`: where the time of networks goes."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from nnlite.explain.document import Document
    from nnlite.network.sequential import Sequential


class Explanation:
    """The result of `nn.explain`. It prints as text; a notebook shows the first screen of the report.

    `document` holds every number. `save(folder)` writes explain.json and the report.
    """

    def __init__(self, document: Document):
        self.document = document

    def __str__(self) -> str:
        from io import StringIO

        from rich.console import Console

        from nnlite.explain import screen

        out = Console(file=StringIO(), width=screen.WIDTH, markup=False, emoji=False, highlight=False)
        screen.show(self.document, out)
        return out.file.getvalue()  # type: ignore[attr-defined]

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from nnlite.explain import report

        return report.first_screen_html(self.document)

    def save(self, folder: str | Path = "nnlite-report", *, png: bool = False) -> list[Path]:
        """Write explain.json, report.html and its figures into a folder. Returns the paths written.

        Figures are SVG files, with `png` PNG files too. Raises ValueError if the folder cannot be made or written, or
        `png` is no boolean.
        """
        from pathlib import Path

        from nnlite.explain import report
        from nnlite.runtime.errors import boolean, writable_folder
        from nnlite.runtime.files import write_json

        png = boolean("png", png)
        path = writable_folder("folder", folder) / "explain.json"
        write_json(path, self.document.to_json())
        return [path, *report.write(self.document, Path(folder), png)]


def explain(
    *networks: Sequential,
    data: Any = None,
    algorithm: str = "auto",
    baseline: str | None = None,
    batch_size: int = 128,
    rounds: int | None = None,
    seed: int = 0,
) -> Explanation:
    """Count, predict and time a training step of built networks, and say why one takes longer than another.

    `data`: (images, labels). Images (n, ...) that do not fit a network's input shape are replaced by a random batch,
    as are missing ones: the time depends on shapes only. `baseline`: the name of the network that ratios are relative
    to (default: the first). `algorithm`: the algorithm of all convolutions. `rounds`: timed steps of each network
    (default: 15, the fewest that give an interval). The networks are not changed.

    Raises ValueError, which names the argument, if there is no network, if one is not built, if two have the same name,
    or if a name is unknown.
    """
    from nnlite.explain.measure import explain_networks
    from nnlite.explain.rows import ROUNDS
    from nnlite.network.sequential import Sequential
    from nnlite.runtime.errors import positive_int, unknown

    batch_size = positive_int("batch_size", batch_size)
    rounds = ROUNDS if rounds is None else positive_int("rounds", rounds)
    seed = positive_int("seed", seed, 0)
    if not networks:
        raise ValueError("networks: expected at least one built Sequential. Received: none")
    for i, network in enumerate(networks):
        if not isinstance(network, Sequential) or not network.built or not network.layers:
            raise ValueError(f"networks[{i}]: expected a built Sequential with layers. Received: {network!r:.80}")
    names = [network.name for network in networks]
    if len(set(names)) < len(names):
        raise ValueError(f"networks: expected different names (Sequential(..., name=...)). Received: {names}")
    if baseline is not None and baseline not in names:
        raise unknown("baseline", baseline, names)
    if data is not None:
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            raise ValueError(f"data: expected (images, labels). Received: {type(data).__name__}")
        if batch_size > len(data[0]):
            raise ValueError(f"batch_size: expected 1 to {len(data[0])}, the images of data. Received: {batch_size}")
    document = explain_networks(
        networks,
        data,
        data_name="random" if data is None else "data",
        algorithm=algorithm,
        baseline=baseline,
        batch_size=batch_size,
        rounds=rounds,
        seed=seed,
    )
    return Explanation(document)


class _Callable(types.ModuleType):
    """Makes the package itself callable: `nn.explain(...)`."""

    def __call__(self, *networks: Any, **options: Any) -> Explanation:
        return explain(*networks, **options)


sys.modules[__name__].__class__ = _Callable
