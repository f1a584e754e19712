"""`nnlite summary MODEL`: exact counts, without running the network."""

from __future__ import annotations

import argparse

from nnlite.explain.request import add_model_argument, resolve_model
from nnlite.runtime.errors import positive_int
from nnlite.runtime.files import write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_argument(parser)


def run(options: argparse.Namespace) -> int:
    positive_int("--batch-size", options.batch_size)
    model = resolve_model(options.model)
    model.summary(batch_size=options.batch_size)
    if options.json:
        cost = model.cost(options.batch_size)
        content = {
            "name": model.name,
            "batch_size": options.batch_size,
            "parameters": cost.parameters,
            "forward_macs_per_image": cost.forward_macs_per_image,
            "training_macs_per_image": cost.training_macs_per_image,
            "unfused_least_bytes_per_step": cost.minimum_traffic,
            "passes": [
                {"layer": p.layer, "pass": p.part, "macs": p.macs, "flops": p.flops, "bytes": p.bytes}
                for p in cost.passes
            ],
        }
        write_json(options.json, content)
    return 0
