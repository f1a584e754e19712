"""The report of `nnlite explain`: one HTML file that needs no network, and its pictures as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnlite.files import write_whole


def write(document: dict[str, Any], folder: Path) -> list[Path]:
    """Write report.html and figures/*.svg and *.png into `folder`, from explain.json's content; the files written."""
    from nnlite.explain.report import canvas, page, raster
    from nnlite.explain.report.run import Run

    run = Run(document)
    figures = page.figures(run)
    report = folder / "report.html"
    write_whole(report, page.render(run, figures))
    pictures = folder / "figures"
    pictures.mkdir(exist_ok=True)
    written = [report]
    for figure in figures:
        whole = canvas.compose(figure.panels, figure.columns, figure.title, figure.legend)
        vector, pixels = pictures / f"{figure.name}.svg", pictures / f"{figure.name}.png"
        write_whole(vector, canvas.svg(whole, alone=True))
        raster.write_png(whole, pixels)
        written += [vector, pixels]
    return written
