"""Documents as explain.json holds them, with exact counts and made-up times, for tests of the report."""

import numpy as np

import nnlite as nn
from nnlite.explain.measure import _counted
from nnlite.explain.report import page
from nnlite.explain.report.run import Run
from nnlite.explain.structure import structure

BATCH = 128
#: what `auto` computes in one kernel, both gradients at once
STEM = "conv2d+conv2d_1+max_pooling2d+dropout"
MACHINE = {
    "processor": "a processor",
    "threads": 2,
    "fma_gflops_one": 90.0,
    "fma_gflops_all": 200.0,
    "bandwidths": [
        {"level": level, "bytes": size, "threads": n, "read_gbs": n * speed / 2, "copy_gbs": n * speed / 2}
        for n in (1, 2)
        for level, size, speed in (("L1", 1 << 15, 300.0), ("L2", 1 << 20, 200.0), ("memory", 1 << 28, 20.0))
    ],
    "numpy_call_us": 0.4,
    "numba_call_us": 0.2,
    "parallel_region_us": 5.0,
}


def _rows(cost, fused):
    """(layer, pass, FLOPs, bytes) as they are timed; `fused` with the first layers of a CNN in one kernel."""
    keys = {}
    for p in cost.passes:
        layer = "rmsprop" if p.part == "optimizer" else p.layer
        part = p.part
        if fused and layer in STEM.split("+"):
            layer, part = STEM, part if part == "forward" else "gradients"
        keys[layer, part] = 1.0
    return [(*key, *_counted(cost, keys, key)) for key in keys]


def _terms(ms, flops):
    """Milliseconds in the parts that the time model has."""
    large = {"compute": 0.7 * ms, "memory": 0.1 * ms} if flops else {"compute": 0.0, "memory": 0.8 * ms}
    return {**large, "calls": 0.15 * ms, "fresh": 0.05 * ms}


def network(model, seed, *, complete, fused=False, threads=2):
    """A model object; `complete` with moved bytes and predictions, else with null in their places."""
    random = np.random.default_rng(seed)
    cost = model.cost(BATCH)
    layers = [
        {
            "name": name,
            "pass": part,
            "flops": flops,
            "bytes": size,
            "moved_bytes": int(size * random.uniform(0.5, 4)) if complete else None,
            "ms": (ms := 0.05 + flops / 1e8 + size / 1e7),
            "predicted_ms": (guess := ms * random.uniform(0.8, 1.2)) if complete else None,
            "terms_ms": _terms(guess, flops) if complete else None,
            "stages": [{"what": "product", "ms": guess}] if complete else [],
            "bound": ("compute" if flops > 1e7 else "memory" if size > 1e6 else "overhead") if complete else None,
        }
        for name, part, flops, size in _rows(cost, fused)
    ]
    rest = {"flops": None, "bytes": None, "predicted_ms": None, "bound": None}
    layers += [
        {"name": "loss", "pass": "forward", "ms": 0.1, **rest},
        {"name": "other", "pass": "other", "ms": 0.3, **rest},
    ]
    step = sum(layer["ms"] for layer in layers)
    return {
        "name": model.name,
        "parameters": cost.parameters,
        "forward_macs_per_image": cost.forward_macs_per_image,
        "training_macs_per_image": cost.training_macs_per_image,
        "unfused_least_bytes_per_step": cost.unfused_least_bytes,
        "moved_bytes_per_step": sum(layer.get("moved_bytes") or 0 for layer in layers) if complete else None,
        "step_ms": {"median": step, "min": step, "samples": [step] * 5},
        "predicted_ms": sum(layer["predicted_ms"] or 0 for layer in layers) if complete else None,
        "epoch_s_60000": 469 * step / 1e3,
        "conditions": {"threads": threads},
        "layers": layers,
        "structure": structure(model, BATCH),
    }


def document(names=("mlp", "cnn", "small_cnn"), *, complete=True, fused=False):
    """A run of these networks: everything computed, or nothing that can be null; `fused` as `auto` fuses layers."""
    nets = [getattr(nn.models, name)() for name in names]

    def under(seed, **options):
        return [network(net, seed + i, complete=complete, **options) for i, net in enumerate(nets)]

    return {
        "schema": 1,
        "machine": MACHINE if complete else None,
        "batch_size": BATCH,
        "threads": 2,
        "algorithm": "auto",
        "data": "mnist5k",
        "models": under(0, fused=fused),
        "comparisons": {"im2col": under(10), "theano2017": under(20, threads=1)} if complete else {},
        "verdict": {"Which count": ["Parameters do not predict <these> times."]} if complete else None,
        "run": {"command": "nnlite explain", "date": "2030-01-01T00:00:00+00:00", "versions": {"numpy": "2"}},
        "sweeps": [sweep("filters"), sweep("batch")] if complete else [],
        "ladder_layer": "128x26x26x32 -> 64, 3x3" if complete else None,
        "ladder": LADDER if complete else None,
    }


def rendered(content):
    """The report's page of a document."""
    run = Run(content)
    return page.render(run, page.figures(run))


LADDER = [
    {"name": "naive", "ms": 9e4, "changes": "the definition: seven loops of plain Python"},
    {"name": "im2col", "ms": 30.0, "changes": "every patch a row of a matrix, one matrix product"},
    {"name": "winograd", "ms": 5.0, "changes": "a quarter of the products"},
]


def sweep(name):
    """A sweep of two networks that crosses a baseline."""
    points = [
        {"x": x, "network": net, "algorithm": "auto", "ms": a + b * x, "training_macs_per_image": 10 * x}
        for net, a, b in (("cnn", 1.0, 0.5), ("small_cnn", 0.5, 0.1))
        for x in (1, 2, 4, 8, 16)
    ]
    crossing = {"network": "cnn", "algorithm": "auto", "x": 4.0, "ms": 3.0}
    base = {"x": 0, "network": "mlp", "algorithm": "auto", "ms": 3.0, "training_macs_per_image": 1}
    words = {"title": f"{name} that vary", "x": name, "findings": ["It grows."]}
    return {"name": name, **words, "points": points, "baselines": [base], "crossings": [crossing]}
