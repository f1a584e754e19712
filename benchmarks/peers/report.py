"""Tables for a terminal, and the JSON document."""

from __future__ import annotations

from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.peers.rounds import Samples
from benchmarks.peers.session import Outcome
from nnlite.performance.statistics import paired_ratio

#: the peer that all ratios are relative to
OURS = "nnlite"
#: nnlite of another checkout
BEFORE = "nnlite-before"
#: what nnlite is set beside at the end of a table: the fastest of these peers
FASTEST: dict[str, tuple[str, ...]] = {"the fastest peer": ()}
STEP = {**FASTEST, "PyTorch, better of two layouts": ("torch", "torch-channels-last")}
INFERENCE = {**FASTEST, "ONNX Runtime": ("onnxruntime",)}
#: passes where the fastest peer takes less than this share of nnlite's time are counted
LEAST_RATIO = 0.95
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
    found = {"peers": peers, "failed": outcome.failed, "differing": outcome.differing}
    return {**found, "busy_cpus": outcome.busy_cpus} if outcome.busy_cpus else found


def slower(found: Any, percent: float) -> int:
    """How many of the results in this part of the document say that nnlite is slower than BEFORE by more than this."""
    if isinstance(found, list):
        return sum(slower(part, percent) for part in found)
    if not isinstance(found, dict):
        return 0
    if "peers" not in found:
        return sum(slower(part, percent) for part in found.values())
    ratio = found["peers"].get(BEFORE, {}).get("times_nnlite")
    return int(bool(ratio) and ratio["high"] is not None and ratio["high"] < 1 / (1 + percent / 100))


def beside(found: dict[str, Any], names: tuple[str, ...] = ()) -> tuple[str, dict[str, float]] | None:
    """(the fastest of these peers, or of all, that do the same work; its time in nnlite's), if there is one."""
    rated = {name: peer for name, peer in found["peers"].items() if peer["times_nnlite"]}
    rated = {name: peer for name, peer in rated.items() if name not in found["differing"]}
    able = [name for name in rated if not names or name in names]
    if not able or OURS in found["differing"]:
        return None
    fastest = min(able, key=lambda name: rated[name]["median_ms"])
    return fastest, rated[fastest]["times_nnlite"]


def print_summary(console: Console, found: dict[str, Any], sets: dict[str, tuple[str, ...]]) -> None:
    """One line for each set of peers: how much longer the fastest of it takes than nnlite."""
    for what, names in sets.items():
        if rated := beside(found, names):
            console.print(f"  {what} ({rated[0]}): {_ratio(rated[1])} times {OURS}'s time")


def print_outcome(console: Console, title: str, outcome: Outcome, check: str) -> None:
    """One row per peer, the fastest first; then failures."""
    table = Table(title=title, title_justify="left")
    for heading in ("peer", "median ms", "min", "middle half", f"times {OURS}'s (95%)", check, "idle CPU"):
        table.add_column(heading, justify="left" if heading == "peer" else "right")
    ratios = _ratios(outcome.samples)
    for name in sorted(outcome.samples, key=lambda name: outcome.samples[name].median):
        samples = outcome.samples[name]
        low, high = samples.quartiles
        ratio = _ratio(ratios[name]) if name in ratios else ""
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
    if outcome.busy_cpus:
        console.print(f"  the busy programs took {outcome.busy_cpus:.2f} CPUs during the rounds")


def print_share_of_peak(console: Console, found: dict[str, Any], peak: float) -> None:
    """How long the step's FLOPs take at the FMA peak, and nnlite beside that."""
    line = f"{found['flops'] / 1e9:.3g} GFLOP at the measured FMA peak, {peak:.0f} GFLOP/s: {found['peak_ms']:.3g} ms"
    if OURS in found["peers"]:
        line += f"; {OURS} takes {_ms(found['peers'][OURS]['median_ms'] / found['peak_ms'])} times as long"
    console.print("  " + line)


def print_beside_mlp(console: Console, found: dict[str, Any]) -> None:
    """nnlite's convolutional networks beside its MLP: the question that it explains."""
    ours = {model: row["peers"][OURS]["median_ms"] for model, row in found.items() if OURS in row["peers"]}
    for model in (model for model in ours if model != "mlp" and "mlp" in ours):
        console.print(f"{OURS}'s {model} step takes {_ms(ours[model] / ours['mlp'])} times its mlp step")


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
    rated = [(found[1], row) for row in rows if (found := beside(row))]
    table = Table("N x H x W x C -> K", "pass", "auto", title=title, title_justify="left")
    for name in names:
        table.add_column(f"{name}, ms" if name == OURS else f"{name}, ms (times {OURS}'s)", justify="right")
    table.add_column("distance", justify="right")
    for row in rows:
        cells = [_shape_cell(row["peers"].get(name)) for name in names]
        distance = max((peer["check"] for peer in row["peers"].values()), default=float("nan"))
        table.add_row(row["geometry"], row["pass"], row["algorithm"], *cells, _seen(distance))
    console.print(table)
    if rated:
        values = [ratio["value"] for ratio, _ in rated]
        least, worst = min(rated, key=lambda pair: pair[0]["value"])
        console.print(f"  the fastest peer of each pass, in {OURS}'s time: median {median(values):.2f}")
        console.print(f"  least: {_ratio(least)}, {worst['geometry']}, {worst['pass']}")
        below = {limit: sum(value < limit for value in values) for limit in (LEAST_RATIO, 1)}
        console.print(f"  of {len(values)} passes: " + ", ".join(f"{n} below {limit}" for limit, n in below.items()))
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


def _ratio(ratio: dict[str, Any]) -> str:
    """With its interval, if there are enough rounds for one."""
    known = ratio["low"] is not None
    return f"{ratio['value']:.2f} " + (f"({ratio['low']:.2f}-{ratio['high']:.2f})" if known else "(few rounds)")


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _seen(seen: Any) -> str:
    return f"{seen:.0e}" if isinstance(seen, float) else " to ".join(f"{value:.3f}" for value in seen)
