"""Tables for a terminal, and the JSON document."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.peers.rounds import Samples
from benchmarks.peers.session import Outcome
from nnlite.performance.statistics import paired_ratio

#: the peer that all ratios are relative to
OURS = "nnlite"
#: above this, a peer that should have slept disturbed the others
MOST_IDLE_SHARE = 0.02


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Samples, statistics and checks, by peer."""
    ratios = _ratios(outcome.samples)
    peers = {
        name: {
            "median_ms": samples.median,
            "min_ms": min(samples.ms),
            "quartiles_ms": samples.quartiles,
            "samples_ms": samples.ms,
            "steps_per_burst": samples.steps,
            "times_nnlite": ratios.get(name),
            "idle_share": samples.idle_share,
            "check": outcome.seen[name],
        }
        for name, samples in outcome.samples.items()
    }
    return {"peers": peers, "failed": outcome.failed, "differing": outcome.differing}


def print_outcome(console: Console, title: str, outcome: Outcome, check: str) -> None:
    """One row per peer, the fastest first; then failures."""
    table = Table(title=title, title_justify="left")
    for heading in ("peer", "median ms", "min", "middle half", f"times {OURS}'s (95%)", check, "idle CPU"):
        table.add_column(heading, justify="left" if heading == "peer" else "right")
    ratios = _ratios(outcome.samples)
    for name in sorted(outcome.samples, key=lambda name: outcome.samples[name].median):
        samples = outcome.samples[name]
        low, high = samples.quartiles
        ratio = "{value:.2f} ({low:.2f}-{high:.2f})".format(**ratios[name]) if name in ratios else ""
        table.add_row(
            name,
            _ms(samples.median),
            _ms(min(samples.ms)),
            f"{_ms(low)}-{_ms(high)}",
            ratio,
            _seen(outcome.seen[name]),
            f"{samples.idle_share:.1%}",
        )
    console.print(table)
    for name, reason in outcome.failed.items():
        console.print(f"  {name} failed: {reason}")
    for name, reason in outcome.differing.items():
        console.print(f"  {name} does not do the same work: {reason}")
    for name, samples in outcome.samples.items():
        if samples.idle_share > MOST_IDLE_SHARE:
            console.print(f"  {name} took {samples.idle_share:.0%} of a CPU during the others' turns")


def print_memory(console: Console, title: str, peaks: dict[str, dict[str, int]], failed: dict[str, str]) -> None:
    """One row per peer, the smallest first."""
    table = Table("peer", title=title, title_justify="left")
    table.add_column("MB after an epoch", justify="right")
    table.add_column("of that, after its start", justify="right")
    for name in sorted(peaks, key=lambda name: peaks[name]["trained"]):
        table.add_row(name, *(f"{peaks[name][key] / 1e6:.0f}" for key in ("trained", "started")))
    console.print(table)
    for name, reason in failed.items():
        console.print(f"  {name} failed: {reason}")


def print_shapes(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    """One row per pass of a layer: all times, and ratios to nnlite's."""
    names = list(dict.fromkeys(name for row in rows for name in row["peers"]))
    table = Table("N x H x W x C -> K", "pass", "auto", title=title, title_justify="left")
    for name in names:
        table.add_column(f"{name}, ms" if name == OURS else f"{name}, ms (times {OURS}'s)", justify="right")
    table.add_column("distance", justify="right")
    for row in rows:
        cells = [_shape_cell(row["peers"].get(name)) for name in names]
        distance = max((peer["check"] for peer in row["peers"].values()), default=float("nan"))
        table.add_row(row["geometry"], row["pass"], row["algorithm"], *cells, _seen(distance))
    console.print(table)
    for name in names:
        ratios = [row["peers"][name]["times_nnlite"] for row in rows if name in row["peers"]]
        values = [ratio["value"] for ratio in ratios if ratio]
        if values:
            faster = sum(value > 1 for value in values)
            worst = f"at worst {name} takes {min(values):.2f} of its time"
            console.print(f"  {OURS} is faster than {name} in {faster} of {len(values)}; {worst}")
    for row in rows:
        for name, reason in row["failed"].items():
            console.print(f"  {row['geometry']}, {row['pass']}: {name} failed: {reason}")
        for name, reason in row["differing"].items():
            console.print(f"  {row['geometry']}, {row['pass']}: {name} does not do the same work: {reason}")


def _shape_cell(peer: dict[str, Any] | None) -> str:
    if peer is None:
        return ""
    ratio = peer["times_nnlite"]
    return _ms(peer["median_ms"]) + (f" ({ratio['value']:.2f})" if ratio else "")


def _ratios(samples: dict[str, Samples]) -> dict[str, dict[str, float]]:
    """Ratios of each peer's time to nnlite's, from bursts of the same rounds."""
    if OURS not in samples:
        return {}
    ratios = {name: paired_ratio(mine.ms, samples[OURS].ms) for name, mine in samples.items() if name != OURS}
    return {name: {"value": r.value, "low": r.low, "high": r.high} for name, r in ratios.items()}


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _seen(seen: Any) -> str:
    return f"{seen:.0e}" if isinstance(seen, float) else " to ".join(f"{value:.3f}" for value in seen)
