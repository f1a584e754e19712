"""The report's page: one HTML file from the document alone, which asks nothing of any network."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from nnlite.explain.numbers import listed, short, threads_said
from nnlite.explain.report import canvas, data, html_tables, theme
from nnlite.explain.report.figures import ladder, metrics, paradox, passes, roofline, sweeps, waterfall
from nnlite.explain.report.html_tables import Popovers
from nnlite.explain.report.run import Figure, Run, Variant, step
from nnlite.explain.sweeps import names as sweep_names
from nnlite.explain.verdict import CAUTIONS
from nnlite.version import __version__

#: topics of the verdict that stand beside the first picture
BESIDE = 3


def figures(run: Run) -> list[Figure]:
    """Every picture that the run has data for, in the page's order."""
    shared: list[Figure | None] = [paradox.draw(run), passes.draw(run)]
    for variant in run.variants:
        shared += [metrics.draw(run, variant), waterfall.draw(run, variant), roofline.draw(run, variant)]
    return [figure for figure in (*shared, *sweeps.draw(run), ladder.draw(run)) if figure]


def render(run: Run, pictures: Sequence[Figure]) -> str:
    """The page, with the run's `figures` in it. What was not computed is named as missing where it would be shown."""
    popovers = Popovers()
    sections = _sections(run, {figure.name: figure for figure in pictures}, popovers)
    return Template(_file("page.html")).substitute(
        title=escape(_title(run)),
        lead=escape(_lead(run)),
        version=__version__,
        style=_style(),
        contents=_contents(sections),
        content="\n".join(
            f'<section id="{_anchor(title)}"><h2>{title}</h2>\n{body}</section>' for title, body in sections
        ),
        popovers=popovers.html(),
        script=_file("page.js"),
    )


def _sections(run: Run, drawn: dict[str, Figure], popovers: Popovers) -> list[tuple[str, str]]:
    """(title, HTML) in order; each part that depends on the algorithm once for each."""
    said = dict(run.document.get("verdict") or {})
    answer = _list(said.pop(CAUTIONS, []))
    topics = [_topic(title, sentences) for title, sentences in said.items()]
    beside = BESIDE if "paradox" in drawn else 0
    if beside:
        answer += f'<div class="pairs"><div>{_figure(drawn["paradox"], titled=True)}</div>'
        answer += f'<div class="answer">{"".join(topics[:beside])}</div></div>'
    answer += html_tables.networks(run, popovers) + f'<div class="answer">{"".join(topics[beside:])}</div>'

    def each(name: str, table: bool = False) -> str:
        def body(variant: Variant) -> str:
            rows = html_tables.predictions(variant, popovers) if table and variant.baseline else ""
            return _figure(drawn.get(f"{name}-{variant.algorithm}")) + rows

        return _each_variant(run, body)

    def tables(variant: Variant) -> str:
        return "".join(html_tables.layers(model, variant, run, popovers) for model in variant.models)

    parts = [("The answer of this run", answer)]
    parts.append(("Predicted, then measured", html_tables.accuracy(run, popovers)))
    if run.variants[0].baseline:
        parts.append(("Which count predicts the time?", each("metrics", table=True)))
    parts.append(("Where a step's time goes", _figure(drawn["passes"])))
    parts.append(("From the peak to the measured step", each("waterfall") if run.machine else _no_peak()))
    parts.append(("The roofline", each("roofline")))
    parts.append(("Layer by layer", _each_variant(run, tables)))
    parts.append(("Sweeps", _sweeps(drawn)))
    no_ladder = _note("Not in this run. nnlite explain --ladder adds it.")
    parts.append(("The ladder", _figure(drawn.get("ladder")) or no_ladder))
    parts.append(("This run, and its data", _facts(run)))
    return parts


# Words made from the run -------------------------------------------------------------------------------------------


def _title(run: Run) -> str:
    own = run.variants[0]
    base, cnn = own.baseline, own.find("cnn")
    if base and cnn:
        fewer = base["parameters"] / cnn["parameters"]
        return f"{short(fewer)} times fewer parameters, {short(step(cnn) / step(base))} times the time: why?"
    return f"Where the time of {listed(run.names)} goes"


def _lead(run: Run) -> str:
    document = run.document
    threads = threads_said(max(variant.threads for variant in run.variants))
    networks = f"The network{'s' if len(run.names) > 1 else ''} {listed(run.names)}"
    return (
        f"{networks}, trained on {document['data']} in batches of {document['batch_size']} on {threads}: "
        "counted, measured and compared."
    )


def _topic(title: str, sentences: Sequence[str]) -> str:
    return f"<h3>{escape(title)}</h3>{_list(sentences)}"


def _list(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>" if sentences else ""


def _no_peak() -> str:
    return _note("This run holds no measured ceilings of the machine, so there is no peak to start from.")


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _sweeps(drawn: dict[str, Figure]) -> str:
    present = [name for name in sweep_names() if f"sweep-{name}" in drawn]
    missing = [name for name in sweep_names() if name not in present]
    shown = "".join(_figure(drawn[f"sweep-{name}"], titled=True) for name in present)
    return f'<div class="pairs">{shown}</div>' + (
        _note(f"Not in this run: {listed(missing)}. nnlite explain --sweep NAME adds them.") if missing else ""
    )


def _facts(run: Run) -> str:
    made, machine = run.document.get("run") or {}, run.machine
    rows = [("command", made.get("command")), ("date", made.get("date"))]
    rows += [("versions", ", ".join(f"{k} {v}" for k, v in (made.get("versions") or {}).items()))]
    rows += [("processor", machine.get("processor") or made.get("processor"))]
    if machine:
        peaks = {1: machine["fma_gflops_one"], machine["threads"]: machine["fma_gflops_all"]}
        rows += [("FMA peak", f"{short(peak)} GFLOP/s of {threads_said(count)}") for count, peak in peaks.items()]
    for b in machine.get("bandwidths") or []:
        if b["threads"] == machine["threads"]:
            rows.append((f"copy in {b['level']}", f"{short(b['copy_gbs'])} GB/s"))
    rows += [
        (key, _call_cost(machine[key]))
        for key in ("numpy_call_us", "numba_call_us", "parallel_region_us")
        if key in machine
    ]
    facts = "".join(
        f"<dt>{escape(k.replace('_us', '').replace('_', ' '))}</dt><dd>{escape(v)}</dd>" for k, v in rows if v
    )
    missing = "" if machine else _note("The machine's ceilings were not measured in this run.")
    return f'<dl class="facts">{facts}</dl>{missing}<p>{_downloads(run)}</p>'


def _call_cost(microseconds: float) -> str:
    return f"{short(microseconds)} µs"


def _downloads(run: Run) -> str:
    links = []
    for name, kind, text in (
        ("explain.json", "application/json", json.dumps(run.document, indent=1)),
        ("layers.csv", "text/csv", data.layers_csv(run)),
    ):
        content = base64.b64encode(text.encode()).decode()
        links.append(f'<a download="{name}" href="data:{kind};base64,{content}">{name}</a>')
    return f"The data of this page, which are in this file: {', '.join(links)}."


# HTML --------------------------------------------------------------------------------------------------------------


def _file(name: str) -> str:
    return (files("nnlite.explain.report") / name).read_text(encoding="utf-8")


def _style() -> str:
    dark = theme.variables(dark=True)
    return (
        f":root{{color-scheme:light;{theme.variables(dark=False)}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}"
        f"@media screen{{:root[data-theme=dark]{{color-scheme:dark;{dark}}}}}{theme.figure_rules()}{_file('page.css')}"
    )


def _anchor(title: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in title.lower()).strip("-")


def _contents(sections: Sequence[tuple[str, str]]) -> str:
    links = (f'<li><a href="#{_anchor(title)}">{title}</a></li>' for title, _ in sections)
    return f"<ul>{''.join(links)}</ul>"


def _each_variant(run: Run, body: Any) -> str:
    several = len(run.variants) > 1
    sections = []
    for variant in run.variants:
        name = escape(variant.algorithm)
        heading = f"<h3>{name}</h3>" if several else ""
        sections.append(f'<section class="variant" data-algorithm="{name}">{heading}{body(variant)}</section>')
    return "".join(sections)


def _figure(figure: Figure | None, titled: bool = False) -> str:
    """The picture under its caption; with its title where it shares a section with others."""
    if figure is None:
        return ""
    widest = max(panel.width for panel in figure.panels)
    least = min(0.86 * widest, 440)
    panels = "".join(f'<div style="--natural:{panel.width:.0f}px">{canvas.svg(panel)}</div>' for panel in figure.panels)
    legend = f'<div class="legend">{canvas.svg(figure.legend)}</div>' if figure.legend else ""
    title = f"<b>{escape(figure.title)}.</b> " if titled else ""
    notes = _list(figure.notes)
    return (
        f'<figure id="{figure.name}"><figcaption>{title}<span class="caption">{escape(figure.caption)}</span>'
        f'{notes}</figcaption>{legend}<div class="panels" style="--least:{least:.0f}px">{panels}</div></figure>'
    )
