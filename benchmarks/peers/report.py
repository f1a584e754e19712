"""Tables for a terminal, and the JSON document."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.peers.rounds import Samples
from benchmarks.peers.session import Outcome
from nnlite.lab.statistics import paired_ratio

#: the peer that all ratios are relative to
OURS = "nnlite"
#: the peer whose single passes nnlite's are compared with
SHAPES_PEER = "torch-channels-last"
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
    """One row a peer, fastest first; then what went wrong, if anything."""
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
            console.print(f"  {name} took {samples.idle_share:.0%} of a processor during the others' turns")


def print_memory(console: Console, title: str, peaks: dict[str, dict[str, int]], failed: dict[str, str]) -> None:
    """One row a peer, least first."""
    table = Table("peer", title=title, title_justify="left")
    table.add_column("MB after an epoch", justify="right")
    table.add_column("of that, after its start", justify="right")
    for name in sorted(peaks, key=lambda name: peaks[name]["trained"]):
        table.add_row(name, *(f"{peaks[name][key] / 1e6:.0f}" for key in ("trained", "started")))
    console.print(table)
    for name, reason in failed.items():
        console.print(f"  {name} failed: {reason}")


def print_shapes(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    """One row a pass of a layer: both times, and the other's relative to nnlite's."""
    table = Table("layer", "N x H x W x C -> K", "pass", "auto", title=title, title_justify="left")
    for heading in (f"{OURS} ms", "torch ms", "times nnlite's (95%)", "distance"):
        table.add_column(heading, justify="right")
    for row in rows:
        peers = row["peers"]
        if set(peers) != {OURS, SHAPES_PEER}:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in row["failed"].items())
            table.add_row(row["layer"], row["geometry"], row["pass"], row["algorithm"], reasons)
            continue
        ours, other = peers[OURS], peers[SHAPES_PEER]
        table.add_row(
            row["layer"],
            row["geometry"],
            row["pass"],
            row["algorithm"],
            _ms(ours["median_ms"]),
            _ms(other["median_ms"]),
            "{value:.2f} ({low:.2f}-{high:.2f})".format(**other["times_nnlite"]),
            _seen(max(ours["check"], other["check"])),
        )
    console.print(table)
    ratios = [row["peers"][SHAPES_PEER]["times_nnlite"]["value"] for row in rows if SHAPES_PEER in row["peers"]]
    if ratios:
        faster = sum(ratio > 1 for ratio in ratios)
        console.print(
            f"  {OURS} is faster in {faster} of {len(ratios)}; at worst PyTorch takes {min(ratios):.2f} of its time"
        )
    for row in rows:
        for name, reason in row["differing"].items():
            console.print(f"  {row['layer']}, {row['pass']}: {name} does not do the same work: {reason}")


def _ratios(samples: dict[str, Samples]) -> dict[str, dict[str, float]]:
    """Of each peer's time to nnlite's, from bursts of the same rounds."""
    if OURS not in samples:
        return {}
    ratios = {name: paired_ratio(mine.ms, samples[OURS].ms) for name, mine in samples.items() if name != OURS}
    return {name: {"value": r.value, "low": r.low, "high": r.high} for name, r in ratios.items()}


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _seen(seen: Any) -> str:
    return f"{seen:.0e}" if isinstance(seen, float) else " to ".join(f"{value:.3f}" for value in seen)
