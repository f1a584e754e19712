"""The report of `nnlite explain`: one HTML page that needs no network connection, and its pictures as files."""

from __future__ import annotations

import base64
import csv
import json
import re
from io import BytesIO, StringIO
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnlite.explain.document import Document
from nnlite.lab.numbers import threads_said
from nnlite.runtime.files import write_whole
from nnlite.runtime.version import __version__

if TYPE_CHECKING:
    from jinja2 import Template

_FOLDER = Path(__file__).parent
_COLUMNS = ("algorithm", "network", "layer", "pass", "flops", "minimum_traffic", "memory_traffic", "ms", "predicted_ms",
            "bound")  # fmt: skip


def write(document: Document, folder: Path, png: bool = False) -> list[Path]:
    """Write report.html and figures/*.svg, with `png` *.png too, into `folder`. Returns the paths written."""
    page, files = render(document, png)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    contents = {"report.html": page.encode(), **{f"figures/{name}": content for name, content in files.items()}}
    for name, content in contents.items():
        write_whole(folder / name, content)
    return [folder / name for name in contents]


def render(document: Document, png: bool = False) -> tuple[str, dict[str, bytes]]:
    """(the page, the content of each figure's file by name)"""
    from markupsafe import Markup
    from matplotlib import rc_context

    from nnlite.explain import case_study
    from nnlite.explain.report import drawing, figures, theme

    files: dict[str, bytes] = {}
    with rc_context(drawing.STYLE):
        pictures = figures.draw(document)
        for panel in drawing.panels(pictures):
            if engine := panel.figure.get_layout_engine():
                engine.execute(panel.figure)
            panel.figure.set_layout_engine(None)  # saving would lay it out and draw it once more
            files[f"{panel.name}.svg"] = _saved(panel.figure, "svg")
            if png:
                files[f"{panel.name}.png"] = _saved(panel.figure, "png")
            panel.svg = Markup(_inline(files[f"{panel.name}.svg"].decode(), panel.name, panel.alt))
    light, dark = theme.variables(dark=False), theme.variables(dark=True)
    css = (_FOLDER / "page.css").read_text().replace("/*light*/", light).replace("/*dark*/", dark)
    numbers = count()
    page = _template().render(
        _context(document),
        version=__version__,
        names=[n.name for n in document.models],
        algorithms=list(document.by_algorithm),
        formulas=lambda: f"f{next(numbers)}",
        pictures=pictures,
        case_study=case_study.sections(document) if document.case_study else {},
        facts=_facts(document),
        downloads={
            "explain.json": _data_uri(json.dumps(document.to_json()), "application/json"),
            "layers.csv": _data_uri(layers_csv(document), "text/csv"),
        },
        css=Markup(css),
        js=Markup((_FOLDER / "page.js").read_text()),
    )
    return page, files


def first_screen_html(document: Document) -> str:
    """The first screen of the page, for a notebook."""
    template = _template()
    return "".join(template.blocks["first_screen"](template.new_context({**_context(document), "formulas": None})))


def layers_csv(document: Document) -> str:
    """One row per network, algorithm, layer and pass; a value that was not computed is empty."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for n in document.everything:
        for row in n.layers:
            counted = (row.flops, row.bytes, row.moved_bytes, row.ms, row.predicted_ms, row.bound)
            writer.writerow([n.algorithm, n.name, row.name, row.part, *counted])
    return text.getvalue()


def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    options: dict[str, Any] = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=FileSystemLoader(_FOLDER), undefined=StrictUndefined, **options)
    return environment.get_template("page.html.j2")


def _context(document: Document) -> dict[str, Any]:
    """The template variables of the first screen."""
    from nnlite.explain import answer, case_study, compare, tables

    return {
        "document": document,
        "tables": tables,
        "question": answer.question(document),
        "answer": answer.sentences(document),
        "epochs": case_study.epochs(document),
        "worst_prediction": compare.worst_prediction(document),
    }


def _saved(figure: Any, kind: str) -> bytes:
    """The content of a figure's file; the same document gives the same bytes."""
    drawn = BytesIO()
    figure.savefig(drawn, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {})
    return drawn.getvalue()


def _inline(svg: str, name: str, alt: str) -> str:
    """A figure's SVG for the page: with CSS variables as colours, unique ids, and its description as aria-label."""
    from markupsafe import escape

    from nnlite.explain.report import theme

    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    prefix = f"{re.sub(r'[^a-zA-Z0-9-]', '_', name)}-"
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", svg)
    width = re.search(r'width="([\d.]+)pt"', svg)
    style = f' style="--natural:{width.group(1)}pt"' if width else ""
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"{style}', 1)
    return theme.with_variables(svg)


def _data_uri(content: str, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content.encode()).decode()}"


def _facts(document: Document) -> dict[str, str]:
    run, machine = document.run, document.machine
    facts = {name: str(run[name]) for name in ("command", "date", "processor") if run.get(name)}
    facts["threads"] = threads_said(document.threads)
    facts["data"] = f"{document.data}, batches of {document.batch_size}"
    facts["rounds"] = f"{document.rounds} of {document.rounds_asked}"
    if machine:
        peak, copies = document.peak_rates(machine["threads"])
        facts["peak rates"] = f"{peak:.0f} GFLOP/s ({document.peak_rates(1)[0]:.0f} with one thread)"
        facts["bandwidths"] = f"{', '.join(f'{level} {gbs:.0f}' for level, gbs in copies.items())} GB/s"
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in (run.get("versions") or {}).items())
    return facts
