"""Sequential: a stack of layers with training, evaluation and prediction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nnlite import ops
from nnlite.autograd import Tensor, is_recording, no_grad
from nnlite.network import batches, losses, metrics, optimizers
from nnlite.network import metrics as known_metrics
from nnlite.network.fusion import is_plain
from nnlite.network.layers import Conv2D, Dense, Layer
from nnlite.network.layers.base import Shape
from nnlite.network.progress import History, Progress, check_verbose, describe
from nnlite.network.stack import Stack
from nnlite.runtime import random, scopes
from nnlite.runtime.errors import boolean, positive_int, several

#: the losses that nnlite's kernels compute, the first two if from logits
_FROM_LOGITS = losses.sparse_categorical_crossentropy, losses.categorical_crossentropy
_KNOWN = *_FROM_LOGITS, losses.mean_squared_error


class Sequential(Stack):
    """A stack of layers that can be trained. It is built (parameters made) by an `Input` as first layer or by a call.

    >>> model = Sequential([Input((784,)), Dense(10, activation="softmax")])
    """

    _checks: ClassVar = Stack._checks | {"loss": lambda _, value: None if value is None else losses.get(value)}

    def __init__(self, layers: Iterable[Layer] = (), name: str = "sequential"):
        self._optimizer: optimizers.Optimizer | None = None
        self.loss: Callable[..., Tensor] | None = None
        self._metrics: list[tuple[str, metrics.Metric]] = []
        super().__init__(layers, name)

    def add(self, layer: Layer) -> None:
        """Append a layer; without a name it is named after its class. An Input sets the model's input shape."""
        super().add(layer)
        self._hand_over(self.optimizer)

    def build(self, input_shape: Shape) -> None:
        """Make all parameters for samples of `input_shape` (without the batch); none if there is an error."""
        was_built = self.built
        super().build(input_shape)
        if not was_built:
            self._hand_over(self.optimizer)

    @property
    def optimizer(self) -> optimizers.Optimizer | None:
        """The optimizer, None before compile. Setting one, or its name, starts it with new state."""
        return self._optimizer

    @optimizer.setter
    def optimizer(self, value: str | optimizers.Optimizer | None) -> None:
        optimizer = None if value is None else optimizers.get(value)
        self._hand_over(optimizer)
        self._optimizer = optimizer

    def _hand_over(self, optimizer: optimizers.Optimizer | None) -> None:
        """Pass the parameters to the optimizer, if both exist."""
        if optimizer is not None and self.built and (parameters := self.parameters()):
            optimizer.build(parameters)

    # Training ---------------------------------------------------------------------------------------------------

    def compile(
        self,
        optimizer: str | optimizers.Optimizer = "rmsprop",
        loss: str | Callable[..., Tensor] = "sparse_categorical_crossentropy",
        metrics: Sequence[str | metrics.Metric] = (),
        fuse: bool = True,
    ) -> None:
        """Set the optimizer, the loss and the metrics. `fuse=False` gives each operation its own kernel.

        Your own loss is a function (y_true, y_pred) of an array and a Tensor that returns a Tensor with one element,
        the mean over the batch. Your own metric is a function (y_true, y_pred) of two arrays that returns its mean over
        the batch, or one number per sample (n); fit and evaluate weight the means by batch size.

        Raises ValueError for an unknown name, or if two metrics have the same name; nothing is changed then.
        """
        loss_function, fuse = losses.get(loss), boolean("fuse", fuse)
        found = [known_metrics.get(metric) for metric in several("metrics", metrics, "names or functions")]
        known_metrics.check_names([name for name, _ in found])
        self.optimizer = optimizers.get(optimizer)
        self.loss, self._metrics, self.fuse = loss_function, found, fuse
        for layer in self._layers:
            if isinstance(layer, (Conv2D, Dense)):
                layer.fuse = fuse

    def train_on_batch(self, x: Any, y: Any) -> dict[str, float]:
        """One training step on a batch: forward, backward, update. Returns loss and metrics from before the update.

        Raises ValueError, before anything is computed, if x or y does not fit or holds NaN or infinity.
        """
        optimizer, loss_function = self._require_compiled()
        x = batches.as_finite("x", batches.as_samples("x", x, self.input_shape))
        y = batches.as_targets("y", y, len(x))
        totals = self._train_step(x, y, optimizer, loss_function)
        return {name: total / len(x) for name, total in totals.items()}

    def _train_step(
        self, x: np.ndarray, y: np.ndarray, optimizer: optimizers.Optimizer, loss_function: Callable[..., Tensor]
    ) -> dict[str, float]:
        if not self.built:
            self.build(x.shape[1:])
        parameters = self.parameters()

        def compute(x: np.ndarray, y: np.ndarray) -> list[np.ndarray | None]:
            loss, outputs = self._loss(x, y, loss_function, training=True)
            if not loss.requires_grad:
                raise ValueError(f"model {self.name!r}: expected a layer with trainable parameters. Received: none")
            loss.backward()
            return [loss._data, outputs, *(parameter._grad for parameter in parameters)]

        for parameter in parameters:
            parameter._grad = None  # of the last step; a replay overwrites it
        loss, outputs, *gradients = self._with_loss(loss_function, compute, x, y, training=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter._grad = gradient
        optimizer.step()
        return self._totals(y, loss, outputs)

    def _with_loss(
        self, loss_function: Callable[..., Tensor], compute: Callable, x: np.ndarray, y: np.ndarray, *, training: bool
    ) -> Any:
        """`compute(x, y)`; replayed where nnlite's kernels compute the loss."""
        if training != is_recording() or loss_function not in _KNOWN:
            return compute(x, y)

        def is_repeatable() -> bool:
            return loss_function not in _FROM_LOGITS or self._takes_logits(loss_function)

        return self._again(loss_function, compute, x, y, training=training, is_repeatable=is_repeatable)

    def _loss(
        self, x: np.ndarray, y: np.ndarray, loss_function: Callable[..., Tensor], training: bool
    ) -> tuple[Tensor, np.ndarray]:
        """(mean loss, outputs for the metrics): the outputs are logits if the last softmax is fused with the loss."""
        logits = self._takes_logits(loss_function)
        outputs = self._forward(x, training, logits)
        with scopes.scope("loss", "forward"):
            loss = loss_function(y, outputs, from_logits=True) if logits else loss_function(y, outputs)
        if not isinstance(loss, Tensor) or loss.size != 1:
            received = f"shape {loss.shape}" if isinstance(loss, Tensor) else f"{loss!r:.60}"
            raise ValueError(f"loss: expected a function that returns a Tensor with one element. Received: {received}")
        return loss, outputs._data

    def _takes_logits(self, loss_function: Callable[..., Tensor]) -> bool:
        """Whether the last softmax is fused with the loss: faster, and stable for logits of any size."""
        last = self._layers[-1] if self._layers else None
        return (
            self.fuse
            and is_plain(last, Dense)
            and last.activation is ops.softmax
            and loss_function in _FROM_LOGITS
            and all(metric is metrics.accuracy for _, metric in self._metrics)
        )

    def _totals(self, y: np.ndarray, loss: np.ndarray, outputs: np.ndarray) -> dict[str, float]:
        """Loss and metrics, summed over a batch."""
        totals = {"loss": loss.item() * len(outputs)}
        for name, metric in self._metrics:
            totals[name] = metrics.total(name, metric(y, outputs), len(outputs))
        return totals

    def fit(
        self,
        x: Any,
        y: Any,
        batch_size: int = 32,
        epochs: int = 1,
        verbose: int | str = "auto",
        validation_data: tuple[Any, Any] | None = None,
        shuffle: bool = True,
    ) -> History:
        """Train for `epochs` passes over x (n, *input_shape) and y.

        If `shuffle`, each epoch uses a new random order, which `nn.seed` determines. Shows a bar on a terminal, else
        one line per epoch. Raises ValueError if an argument does not fit, and before a batch with NaN or infinity.
        """
        optimizer, loss_function = self._require_compiled()
        x = batches.as_samples("x", x, self.input_shape)
        y = batches.as_targets("y", y, len(x))
        batch_size, epochs = positive_int("batch_size", batch_size), positive_int("epochs", epochs)
        if not self.built:
            self.build(x.shape[1:])
        losses.check_targets("y", y, self.output_shape, loss_function)
        if validation_data is not None:
            validation_data = _pair("validation_data", validation_data)
            samples = batches.as_samples("validation_data[0]", validation_data[0], self.input_shape)
            targets = batches.as_targets("validation_data[1]", validation_data[1], len(samples))
            losses.check_targets("validation_data[1]", targets, self.output_shape, loss_function)
            validation_data = samples, targets
        shuffle = boolean("shuffle", shuffle)
        history = History()
        progress = Progress(epochs, len(x), verbose)
        try:
            for epoch in range(epochs):
                progress.start(epoch)
                order = random.generator().permutation(len(x)) if shuffle else None
                values = self._means(
                    batches.batches("x", x, y, batch_size, order),
                    lambda x, y: self._train_step(x, y, optimizer, loss_function),
                    progress.advance,
                )
                if validation_data is not None:
                    results = self._evaluate("validation_data[0]", *validation_data, batch_size=batch_size)
                    values |= {f"val_{name}": value for name, value in results.items()}
                history.append(epoch, values)
                progress.finish(values)
        finally:
            progress.stop()
        return history

    def evaluate(self, x: Any, y: Any, batch_size: int = 32, verbose: int | str = "auto") -> Any:
        """The loss, or [loss, *metrics], of x and y. Prints them unless `verbose` is 0."""
        check_verbose(verbose)
        results = self._evaluate("x", x, y, positive_int("batch_size", batch_size))
        if verbose:
            print(describe(results))
        values = list(results.values())
        return values if len(values) > 1 else values[0]

    def _evaluate(self, argument: str, x: Any, y: Any, batch_size: int) -> dict[str, float]:
        _, loss_function = self._require_compiled()
        x = batches.as_samples(argument, x, self.input_shape)
        y = batches.as_targets("y", y, len(x))

        def compute(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
            loss, outputs = self._loss(x, y, loss_function, training=False)
            return [loss._data, outputs]

        def totals(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
            return self._totals(y, *self._with_loss(loss_function, compute, x, y, training=False))

        with no_grad():
            return self._means(batches.batches(argument, x, y, batch_size), totals)

    def _means(
        self,
        parts: Iterable[batches.Batch],
        step: Callable[[np.ndarray, np.ndarray], dict[str, float]],
        advance: Callable[[int, dict[str, float]], None] = lambda samples, means: None,
    ) -> dict[str, float]:
        """The means over all batches of what `step` sums over each; `advance` gets the means so far."""
        sums: dict[str, float] = {}
        means: dict[str, float] = {}
        done = 0
        for x, y in parts:
            assert y is not None
            for name, total in step(x, y).items():
                sums[name] = sums.get(name, 0.0) + total
            done += len(x)
            means = {name: total / done for name, total in sums.items()}
            advance(len(x), means)
        return means

    def predict(self, x: Any, batch_size: int = 32, verbose: int | str = 0) -> np.ndarray:
        """The results for x (n, *input_shape) as an array (n, *output_shape), in batches.

        Prints the speed unless `verbose` is 0.
        """
        check_verbose(verbose)
        began = time.perf_counter()
        x = batches.as_samples("x", x, self.input_shape)
        with no_grad():
            parts = [
                self(rows).data for rows, _ in batches.batches("x", x, None, positive_int("batch_size", batch_size))
            ]
        if verbose:
            seconds = time.perf_counter() - began
            print(f"{len(x)} samples - {seconds:.1f} s - {len(x) / seconds:,.0f} samples/s")
        return np.concatenate(parts)

    # Summary and saving ----------------------------------------------------------------------------------------

    def summary(self, print_fn: Callable[[str], Any] = print, batch_size: int = 32) -> None:
        """Print Keras's table with the MACs per sample of the forward pass.

        Below it: the algorithm of each convolution for `batch_size` samples, and why it was chosen.
        """
        from nnlite.network.summary import render

        self._require_built()
        if not callable(print_fn):
            raise ValueError(f"print_fn: expected a function of a string. Received: {print_fn!r}")
        print_fn(render(self, positive_int("batch_size", batch_size)))

    def save(self, path: str | Path) -> None:
        """Write architecture, weights, compile arguments and the optimizer's state to one safetensors file.

        `nn.load_model` reads it. A custom optimizer, loss or metric is not saved: a warning names it.
        """
        from nnlite.network.saving import save_model

        self._require_built()
        save_model(self, path)

    def _require_compiled(self) -> tuple[optimizers.Optimizer, Callable[..., Tensor]]:
        if self.optimizer is None or self.loss is None:
            raise ValueError(f"model {self.name!r}: expected compile(...) before training or evaluating")
        return self.optimizer, self.loss


def load_model(path: str | Path) -> Sequential:
    """The model in a file by `save`, built, with its weights, and compiled if it was and `save` did not warn.

    Training goes on from the optimizer's saved state. Raises FileNotFoundError if there is no file, ValueError if it is
    damaged or not by nnlite.
    """
    from nnlite.network.saving import read_model

    return read_model(path, Sequential)


def _pair(argument: str, value: Any) -> tuple[Any, Any]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{argument}: expected (x, y). Received: {type(value).__name__}")
    return value[0], value[1]
