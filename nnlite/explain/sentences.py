"""The answer in sentences, made from this run's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nnlite.cost import human_bytes
from nnlite.explain.accuracy import AIM, beyond_aim, median_error, off, off_said, why_not
from nnlite.explain.measure import Measurement
from nnlite.explain.names import spoken
from nnlite.explain.numbers import listed
from nnlite.explain.question import ACCEPTED_CHANNELS, ACCEPTED_RATIO, BASELINE, REPORTED_SECONDS
from nnlite.explain.verdict import METRICS, WITHIN, Verdict, baseline, measured_ratio, predictions, step_of


def sentences(by_algorithm: Mapping[str, Sequence[Measurement]]) -> Verdict:
    """The verdict by topic; `by_algorithm` ends with the algorithm that was asked for."""
    *_, asked = by_algorithm.values()
    everything = [m for measurements in by_algorithm.values() for m in measurements]
    algorithm, base = asked[0].algorithm, baseline(asked)
    said: Verdict = {}
    if base is not None and len(asked) > 1:
        said = {
            "Parameters, arithmetic and time": [_compare(m, base) for m in asked if m is not base],
            "Why the cnn takes longer": _why_the_cnn_takes_longer(by_algorithm),
            "Why the small cnn is not faster under im2col": _why_the_small_cnn_is_slow(everything),
            f"What changes from im2col to {algorithm}": _what_cache_changes(everything, algorithm),
            "As the networks are thought to have run then": _as_it_ran_then(everything),
            "Which count predicts the time": _which_count(by_algorithm),
            "The accepted answer": _accepted_answer(everything),
        }
    said[f"Where the time goes under {algorithm}"] = [_where_time_goes(m) for m in asked]
    said["What remains unexplained"] = _unexplained(everything)
    return {topic: found for topic, found in said.items() if found}


def _compare(m: Measurement, base: Measurement) -> str:
    measured = measured_ratio(m, base)
    text = (
        f"The {m.name} has {_times(m.cost.parameters / base.cost.parameters)} the parameters of the {base.name} and "
        f"{_times(m.cost.training_macs_per_image / base.cost.training_macs_per_image)} its training arithmetic; "
        f"its step took {_times(measured.value)} as long under {m.algorithm}"
    )
    if m.name in REPORTED_SECONDS and base.name in REPORTED_SECONDS:
        text += f", and {_times(REPORTED_SECONDS[m.name] / REPORTED_SECONDS[base.name])} as long in the question"
    return text + "."


def _why_the_cnn_takes_longer(by_algorithm: Mapping[str, Sequence[Measurement]]) -> list[str]:
    """Arithmetic: a convolution's weight is used at every position."""
    *_, asked = by_algorithm.values()
    cnn, base = step_of(asked, asked[0].algorithm, "cnn"), baseline(asked)
    if cnn is None or base is None:
        return []
    if measured_ratio(cnn, base).value <= 1:
        return []
    uses = cnn.cost.forward_macs_per_image / cnn.cost.parameters
    uses_base = base.cost.forward_macs_per_image / base.cost.parameters
    macs = cnn.cost.training_macs_per_image / base.cost.training_macs_per_image
    return [
        "A Conv2D's weight is used once for each output position, a Dense layer's once an image. So each parameter of "
        f"the {cnn.name} is used {uses:.0f} times an image on average, forward, each of the {base.name}'s "
        f"{uses_base:.1f} times, and with fewer parameters it does {macs:.1f} times the arithmetic of training."
    ]


def _why_the_small_cnn_is_slow(everything: Sequence[Measurement]) -> list[str]:
    small, base = step_of(everything, "im2col", "small_cnn"), step_of(everything, "im2col", BASELINE)
    if small is None or base is None or small.prediction is None or small.moved_bytes is None:
        return []
    if measured_ratio(small, base).value <= 1:
        return []
    macs = small.cost.training_macs_per_image / base.cost.training_macs_per_image
    parts = [part.terms for part in small.prediction.parts.values()]
    compute, total = sum(t.compute for t in parts), small.prediction.seconds
    copies = [
        (stage, terms)
        for part in small.prediction.parts.values()
        for stage, _, terms in part.stages
        if stage.kind in ("assign", "accumulate")
    ]
    share = sum(terms.seconds for _, terms in copies) / total
    return [
        f"It does {macs:.2f} times the {base.name}'s arithmetic and takes "
        f"{_times(measured_ratio(small, base).value)} as long. Arithmetic is {100 * compute / total:.0f}% of its "
        f"predicted step; it moves {human_bytes(small.moved_bytes)}, where its operations need "
        f"{human_bytes(small.cost.unfused_least_bytes)}. Copying patches, each pixel nine times and few channels at a "
        f"time, and adding their gradients up again is {100 * share:.0f}% of the predicted step."
    ]


def _what_cache_changes(everything: Sequence[Measurement], asked: str) -> list[str]:
    """From im2col to the algorithm asked for."""
    said = []
    for name in ("cnn", "small_cnn"):
        before, after = step_of(everything, "im2col", name), step_of(everything, asked, name)
        if before is None or after is None or before is after or not (before.moved_bytes and after.moved_bytes):
            continue
        said.append(
            f"The {name} moves {human_bytes(after.moved_bytes)} a step, not {human_bytes(before.moved_bytes)}, and "
            f"takes {after.step_ms:.2f} ms, not {before.step_ms:.2f}: {before.step_ms / after.step_ms:.1f} times as "
            f"fast. {_what_else_changes(after)}"
        )
    small, base = step_of(everything, asked, "small_cnn"), step_of(everything, asked, BASELINE)
    if said and small and base:
        ratio = measured_ratio(small, base)
        if ratio.high < 1:
            said.append(
                f"So under {asked} the small cnn trains faster than the {BASELINE}, {ratio.value:.2f} of its time."
            )
        else:
            said.append(
                f"Still, under {asked} the small cnn takes {ratio.value:.2f} times the {BASELINE}'s time: "
                "not yet as its arithmetic says."
            )
    return said


def _what_else_changes(m: Measurement) -> str:
    """What this step has beside data that stay in cache, from NumPy's im2col on."""
    algorithms = {choice.name for choice in m.algorithms.values()}
    found = ["compiled kernels in place of NumPy's calls"]
    found += ["an image in each lane of a vector"] if "lanes" in algorithms else []
    found += ["Winograd's fewer products"] if "winograd" in algorithms else []
    found += ["layers fused into one kernel"] if any("+" in layer.name for layer in m.layers) else []
    return f"Data that stay in cache are a part of that; the rest: {listed(found)}."


def _as_it_ran_then(everything: Sequence[Measurement]) -> list[str]:
    steps = [step_of(everything, "theano2017", name) for name in REPORTED_SECONDS]
    if not all(steps):
        return []
    base = baseline([m for m in steps if m])
    assert base is not None
    names = ", ".join(REPORTED_SECONDS)
    asked = REPORTED_SECONDS.values()
    ours = [measured_ratio(m, base).value for m in steps if m]
    theirs = [seconds / REPORTED_SECONDS[BASELINE] for seconds in asked]
    explained = [
        f"{name} {our:.1f} here, {their:.1f} there"
        for name, our, their in zip(REPORTED_SECONDS, ours, theirs, strict=True)
    ][1:]
    shows = ours[2] > 1
    return [
        "Under theano2017 (layouts shuffled around each convolution, im2col and matrix product image by image, one "
        f"thread, nothing fused) the times of {names} are as {' : '.join(f'{value:.3g}' for value in ours)}; the "
        f"question's {' : '.join(f'{s:.0f}' for s in asked)} are as "
        f"{' : '.join(f'{value:.3g}' for value in theirs)}.",
        "What this hypothesis explains: "
        + ("that the small cnn takes longer than the mlp, and " if shows else "")
        + "that the cnn takes far longer than its parameters say. "
        f"What it does not: the very ratios ({'; '.join(explained)}). Theano's own elementwise code, its BLAS and the "
        "processor of then are not in it.",
    ]


def _which_count(by_algorithm: Mapping[str, Sequence[Measurement]]) -> list[str]:
    predicted = {algorithm: predictions(measurements) for algorithm, measurements in by_algorithm.items()}
    said = []
    for metric in METRICS:
        landed, missed = [], []
        for algorithm, everything in predicted.items():
            rows = [p for p in everything if p.metric == metric]
            misses = [f"the {p.model} {_factor(p.factor)}" for p in rows if not p.lands]
            if rows and not misses:
                landed.append(algorithm)
            elif rows:
                missed.append(f"under {algorithm} {' and '.join(misses)}")
        if not landed and not missed:
            continue
        subject = metric[0].upper() + metric[1:]
        singular = metric.startswith("the ")
        if not missed:
            verb = "predicts" if singular else "predict"
            said.append(f"{subject} {verb} these times within a factor of {WITHIN:g}, under {listed(landed)}.")
        else:
            verb = "does not" if singular else "do not"
            also = f" (it lands under {listed(landed)})" if landed else ""
            said.append(
                f"{subject} {verb} predict these times within a factor of {WITHIN:g}: {'; '.join(missed)}{also}."
            )
    return said


def _accepted_answer(everything: Sequence[Measurement]) -> list[str]:
    """Where the answer that the question's author accepted goes wrong."""
    cnn = next((m for m in everything if m.name == "cnn"), None)
    base, small = baseline(everything), next((m for m in everything if m.name == "small_cnn"), None)
    if cnn is None or base is None or small is None:
        return []
    forward = cnn.cost.forward_macs_per_image / base.cost.forward_macs_per_image
    training = cnn.cost.training_macs_per_image / base.cost.training_macs_per_image
    first = next(p.macs for p in cnn.cost.passes if p.macs) // cnn.cost.batch_size
    macs_small = small.cost.training_macs_per_image / base.cost.training_macs_per_image
    asked = REPORTED_SECONDS["small_cnn"] / REPORTED_SECONDS[BASELINE]
    return [
        "It is right that a convolution's weights are used at every position. It takes the images to have "
        f"{ACCEPTED_CHANNELS} channels; MNIST's have 1, so the first convolution does {first:,} multiplications an "
        f"image, not {ACCEPTED_CHANNELS * first:,}. And the ratio it arrives at, {ACCEPTED_RATIO} times, is of "
        f"forward multiplications as it counted them: counted here, they are {forward:.1f} times the {BASELINE}'s, and "
        f"with both gradients, as training needs them, {training:.1f} times.",
        f"Multiplications alone cannot explain the small cnn: they say {macs_small:.2f} times the {BASELINE}'s time, "
        f"and it took {asked:.2f} times, {asked / macs_small:.0f} times as much as that.",
    ]


def _where_time_goes(m: Measurement) -> str:
    largest = max(m.layers, key=lambda layer: layer.ms)
    return (
        f"The largest part of the {m.name}'s step, of all passes of its layers, is "
        f"{spoken(largest.name, largest.part)}: {largest.ms:.2f} of {m.step_ms:.2f} ms, "
        f"{100 * largest.ms / m.step_ms:.0f}%."
    )


def _unexplained(measurements: Sequence[Measurement]) -> list[str]:
    """What the model leaves over, and the parts where it is furthest off."""
    predicted = [m for m in measurements if m.predicted_ms is not None]
    without = [
        f"The {m.name} under {m.algorithm} is not predicted: {why_not(m.prediction.missing)}."
        for m in measurements
        if m.prediction and m.prediction.missing
    ]
    if not predicted:
        return without
    worst = max(predicted, key=lambda m: abs(off(m.predicted_ms or 0, m.step_ms)))
    return [
        f"The time model is furthest off for the {worst.name} under {worst.algorithm}, {worst.predicted_ms:.2f} ms "
        f"predicted and {worst.step_ms:.2f} measured ({off_said(worst.predicted_ms, worst.step_ms)})."
        + _largest_miss(worst, longer=(worst.predicted_ms or 0) < worst.step_ms),
        *_row_by_row(predicted),
        *without,
    ]


def _row_by_row(predicted: Sequence[Measurement]) -> list[str]:
    """The median error over all layers and passes, and the steps whose own is more than the model aims for."""
    error = median_error(row for m in predicted for row in m.rows())
    if error is None:
        return []
    worse = [
        f"of the {m.name} under {m.algorithm} alone by {100 * own:.0f}%"
        for m in predicted
        if (own := median_error(m.rows())) and beyond_aim(own)
    ]
    aim = f"the {100 * AIM:.0f}% that it aims for"
    text = f"Row by row, a layer's pass each, it is off by {100 * error:.0f}% in the median"
    return [f"{text}; {listed(worse)}, more than {aim}." if worse else f"{text}, and in no step by more than {aim}."]


def _largest_miss(m: Measurement, longer: bool) -> str:
    """Of the parts that are off as the step is, the one that is most so; "" if there are none."""
    sign = 1 if longer else -1
    misses = [(sign * (layer.ms - (layer.predicted_ms or 0)), layer) for layer in m.layers]
    together = sum(miss for miss, _ in misses if miss > 0)
    if not together:
        return ""
    most, part = max(misses, key=lambda miss: miss[0])
    return (
        f" The parts that took {'longer' if longer else 'less'} than predicted did so by {together:.2f} ms together, "
        f"{most:.2f} of them in {spoken(part.name, part.part)}, {part.predicted_ms or 0:.2f} ms predicted and "
        f"{part.ms:.2f} measured."
    )


def _times(ratio: float) -> str:
    return f"{ratio:.3g} times"


def _factor(ratio: float) -> str:
    """How far off a miss is, in as many digits as show that it is one."""
    far = max(ratio, 1 / ratio)
    digits = next((digits for digits in range(1, 6) if round(far, digits) > WITHIN), 6)
    return f"{far:.{digits}f}x too {'much' if ratio > 1 else 'little'}"
