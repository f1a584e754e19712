"""Sequential: training, evaluating, saving, and what is said when a request does not fit."""

import hashlib
import json
import re
import tracemalloc

import numpy as np
import pytest

import nnlite as nn
from nnlite.network import saving


@pytest.fixture
def model():
    model = nn.Sequential(
        [nn.Input((4,)), nn.Dense(8, activation="relu"), nn.Dropout(0.1), nn.Dense(3, activation="softmax")]
    )
    model.compile(nn.RMSprop(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def write_model(path, described, weights, dtype="F32"):
    """A file as model.save writes it, whatever it says; its digest is right."""
    arrays = {f"{i:06d}": np.asarray(weight, np.float32) for i, weight in enumerate(weights)}
    text = described if isinstance(described, str) else json.dumps(described)
    content = saving.sealed(arrays, {"format": saving.FORMAT, "model": text})
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].replace(b'"F32"', f'"{dtype}"'.encode())
    header = header.replace(re.search(rb'"sha256":"(\w+)"', header)[1], b"0" * 64)
    content = len(header).to_bytes(8, "little") + header + content[8 + size :]
    path.write_bytes(content.replace(b"0" * 64, hashlib.sha256(content).hexdigest().encode(), 1))


def description(model, folder):
    """What a file says of a model."""
    from safetensors import safe_open

    model.save(folder / "described")
    with safe_open(str(folder / "described"), framework="numpy") as file:
        return json.loads(file.metadata()["model"])


@pytest.fixture
def data(generator):
    y = generator.integers(0, 3, 300)
    x = generator.standard_normal((300, 4)).astype(np.float32)
    x[np.arange(300), y] += 3
    return x, y


def test_fit_learns_and_history_is_keras(model, data):
    history = model.fit(*data, batch_size=32, epochs=5, validation_data=data, verbose=0)
    assert sorted(history.history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert history.epoch == [0, 1, 2, 3, 4]
    assert history.history["loss"][-1] < history.history["loss"][0] / 2
    assert history.history["val_accuracy"][-1] > 0.9


def test_the_same_seed_gives_the_same_bits(data):
    results = []
    for _ in range(2):
        nn.seed(5)
        model = nn.Sequential([nn.Input((4,)), nn.Dense(8, activation="relu"), nn.Dropout(0.5), nn.Dense(3)])
        model.compile("sgd", "mse")
        model.fit(data[0], np.eye(3)[data[1]].astype(np.float32), epochs=2, verbose=0)
        results.append(model.get_weights())
    assert all((a == b).all() for a, b in zip(*results, strict=True))


def test_evaluate_is_the_mean_over_samples_whatever_the_batches(model, data):
    whole = model.evaluate(*data, batch_size=300, verbose=0)
    parts = model.evaluate(*data, batch_size=7, verbose=0)
    assert parts == pytest.approx(whole, rel=1e-5)
    probabilities = model.predict(data[0])
    assert whole[0] == pytest.approx(-np.log(probabilities[np.arange(300), data[1]]).mean(), rel=1e-5)
    assert whole[1] == pytest.approx((probabilities.argmax(1) == data[1]).mean())


def test_predict_gives_one_row_a_sample(model, data):
    assert model.predict(data[0], batch_size=7).shape == (300, 3)


def test_fusing_changes_nothing_but_rounding(data):
    weights = []
    for fuse in (True, False):
        nn.seed(2)
        model = nn.Sequential(
            [
                nn.Input((6, 6, 1)),
                nn.Conv2D(4, 3, activation="relu"),
                nn.MaxPooling2D(2),
                nn.Flatten(),
                nn.Dense(5, activation="relu"),
                nn.Dense(3, activation="softmax"),
            ]
        )
        model.compile(nn.SGD(0.1), "sparse_categorical_crossentropy", fuse=fuse)
        images = np.repeat(data[0], 9, axis=1).reshape(300, 6, 6, 1)
        model.fit(images, data[1], shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for fused, unfused in zip(*weights, strict=True):
        np.testing.assert_allclose(fused, unfused, atol=1e-5)


def test_ones_own_loop_is_what_fit_does(model, data):
    x, y = data[0][:64], data[1][:64]
    start = model.get_weights()
    model.layers[1].rate = 0.0
    model.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    fitted = model.get_weights()

    model.set_weights(start)
    optimizer = nn.RMSprop(0.01)
    optimizer.build(model.parameters())
    for i in (0, 32):
        probabilities = model(x[i : i + 32], training=True)
        loss = nn.losses.sparse_categorical_crossentropy(y[i : i + 32], probabilities, from_logits=False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for ours, theirs in zip(model.get_weights(), fitted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_save_and_load(model, data, tmp_path):
    model.fit(*data, verbose=0)
    model.save(tmp_path / "model.safetensors")
    again = nn.load_model(tmp_path / "model.safetensors")
    assert (again.predict(data[0]) == model.predict(data[0])).all()
    assert again.evaluate(*data, verbose=0) == model.evaluate(*data, verbose=0)
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    assert again.optimizer.get_config() == model.optimizer.get_config()
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("name", nn.models.NAMES)
def test_every_network_of_the_question_survives_saving(name, tmp_path):
    model = getattr(nn.models, name)()
    model.save(tmp_path / "model.safetensors")
    again = nn.load_model(tmp_path / "model.safetensors")
    assert all((a == b).all() for a, b in zip(model.get_weights(), again.get_weights(), strict=True))
    assert again.input_shape == model.input_shape


def test_a_failed_save_leaves_the_old_file(model, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    model.save(path)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        model.save(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_loading_what_is_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="path: expected a file written by model.save"):
        nn.load_model(tmp_path / "none")
    (tmp_path / "text").write_text("hello there, this is text")
    with pytest.raises(ValueError, match="path: expected a safetensors file"):
        nn.load_model(tmp_path / "text")


@pytest.mark.parametrize("path", [None, 3, ""])
def test_a_path_that_is_none(model, path):
    for act in (model.save, nn.load_model):
        with pytest.raises((ValueError, FileNotFoundError), match="path: expected"):
            act(path)


@pytest.mark.parametrize("name", ["digits.keras", "digits.H5", "digits.hdf5"])
def test_a_model_is_not_saved_under_a_name_of_keras_own_format(model, tmp_path, name):
    with pytest.raises(ValueError, match=f"path: expected a name that ends in .safetensors.*{name}"):
        model.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_file_of_a_model(model, tmp_path):
    with pytest.raises(ValueError, match="path: expected a file name"):
        model.save(tmp_path)
    with pytest.raises(FileNotFoundError, match="which is not a file"):
        nn.load_model(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"compile": {"optimizer": {"name": "rmsprop", "config": {"colour": 3}}}},
        {"compile": 7},
        {"input_shape": 5},
        {"input_shape": [9, 9, 2]},
        {"name": ...},
        {"compile": ...},
    ],
)
def test_a_file_that_does_not_fit_together(model, tmp_path, change):
    described = {key: value for key, value in (description(model, tmp_path) | change).items() if value is not ...}
    write_model(tmp_path / "broken", described, model.get_weights())
    with pytest.raises(ValueError, match="path: expected a (consistent model|description of a model).*broken'"):
        nn.load_model(tmp_path / "broken")


def test_names_count_up_as_in_keras():
    assert [layer.name for layer in nn.models.mnist_cnn().layers] == [
        "conv2d", "conv2d_1", "max_pooling2d", "dropout", "flatten", "dense", "dropout_1", "dense_1",
    ]  # fmt: skip


def test_summary_is_keras_table_with_macs(capsys):
    nn.models.cnn().summary()
    text = capsys.readouterr().out
    for expected in (
        'Model: "cnn"',
        "conv2d_1 (Conv2D)",
        "(None, 24, 24, 64)",
        "18,496",
        "10,616,832",
        "110,986",
        "10,903,680",
    ):
        assert expected in text


def test_without_a_terminal_fit_prints_one_line_an_epoch(model, data, capsys):
    model.fit(*data, epochs=2, verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert re.match(r"Epoch 2/2 - [\d.]+ s - loss: [\d.]+ - accuracy: [\d.]+ - [\d,]+ samples/s", lines[1])


def test_on_a_terminal_each_epoch_leaves_the_same_line(model, data, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    model.fit(*data, epochs=3, verbose=1)
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", capsys.readouterr().out)  # without what moves the cursor and colours
    line = r"Epoch (\d)/3 - [\d.]+ s - loss: [\d.]+ - accuracy: [\d.]+ - [\d,]+ samples/s"
    assert re.findall(line, text) == ["1", "2", "3"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_in_fit_names_the_first_bad_sample_before_it_is_used(model, data, bad):
    x = data[0].copy()
    x[77, 2] = x[200, 0] = bad
    weights = model.get_weights()
    with pytest.raises(ValueError, match="x: expected finite numbers. Received: NaN or infinity in sample 77"):
        model.fit(x, data[1], batch_size=300, shuffle=False, verbose=0)
    assert all((a == b).all() for a, b in zip(weights, model.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x, y: m.fit(x[:, :3], y), r"x: expected shape \(n, 4\). Received: shape \(300, 3\)"),
        (lambda m, x, y: m(x[None]), r"x: expected shape \(n, 4\). Received: shape \(1, 300, 4\)"),
        (lambda m, x, y: m.fit(x, y[:-1]), r"y: expected 300 rows.*\(299,\)"),
        (lambda m, x, y: m.fit(x[:0], y[:0]), "x: expected at least one sample"),
        (lambda m, x, y: m.fit(x, y + 1), "y: expected labels 0 to 2. Received: 3"),
        (lambda m, x, y: m.fit(x, y, batch_size=0), "batch_size: expected an integer of at least 1"),
        (lambda m, x, y: m.fit(x, y, epochs=1.5), "epochs: expected an integer"),
        (lambda m, x, y: m.fit(x, y, verbose=7), "verbose: expected"),
        (lambda m, x, y: m.fit(x, y, validation_data=x), "validation_data: expected"),
        (lambda m, x, y: m.fit(np.array(["a"]), y), "x: expected an array of numbers"),
        (lambda m, x, y: m.compile(loss="cross"), "unknown loss"),
        (lambda m, x, y: m.compile("rms"), "unknown optimizer"),
        (lambda m, x, y: m.compile(metrics="accuracy"), "metrics: expected a list"),
        (lambda m, x, y: m.compile(metrics=["acuracy"]), "unknown metric.*Did you mean 'accuracy'"),
        (lambda m, x, y: m.set_weights([x]), "weights: expected 4 arrays. Received: 1"),
        (lambda m, x, y: m.set_weights([x, x, x, x]), r"weights\[0\]: expected shape \(4, 8\)"),
        (lambda m, x, y: m.add(nn.Dense(1, name="dense")), "name: expected a unique layer name"),
        (lambda m, x, y: m.add(nn.Input((1,))), "Input only as the first layer"),
    ],
)
def test_errors_name_the_argument(model, data, call, message):
    with pytest.raises(ValueError, match=message):
        call(model, *data)


def test_before_compile_and_before_build(data):
    with pytest.raises(ValueError, match="expected compile"):
        nn.models.mlp().fit(np.zeros((1, 784)), [0])
    unbuilt = nn.Sequential([nn.Dense(3)])
    with pytest.raises(ValueError, match="expected an input shape"):
        unbuilt.count_params()
    unbuilt.compile("sgd", "sparse_categorical_crossentropy")
    unbuilt.fit(*data, verbose=0)
    assert unbuilt.count_params() == 15


def test_uint8_images_and_float64_arrays_train_in_float32(model, data):
    model.fit((data[0] * 10).astype(np.uint8), data[1], verbose=0)
    model.fit(data[0].astype(np.float64), data[1], verbose=0)
    assert all(w.dtype == np.float32 for w in model.get_weights())


def test_architecture_in_the_file_is_readable_json(model, tmp_path):
    safetensors = pytest.importorskip("safetensors")
    model.save(tmp_path / "m")
    with safetensors.safe_open(str(tmp_path / "m"), framework="numpy") as file:
        described = json.loads(file.metadata()["model"])
    assert [layer["class"] for layer in described["layers"]] == ["Dense", "Dropout", "Dense"]


def test_float64_half_and_big_endian_images_train_a_convolution(data):
    model = nn.Sequential([nn.Input((2, 2, 1)), nn.Conv2D(3, 2), nn.Flatten(), nn.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    images = data[0].reshape(300, 2, 2, 1)
    expected = model.predict(images)
    for dtype in (np.float64, np.float16, ">f4", np.longdouble):
        np.testing.assert_allclose(model.predict(images.astype(dtype)), expected, atol=1e-2)
        assert model.predict(images.astype(dtype)).dtype == np.float32
    assert model(images.tolist()).dtype == np.float32
    model.fit(images.astype(np.float64), data[1], verbose=0)


def test_a_label_out_of_range_is_found_before_the_first_step(model, data):
    y = data[1].copy()
    y[139] = 77
    weights = model.get_weights()
    with pytest.raises(ValueError, match="y: expected labels 0 to 2. Received: 77 at position 139"):
        model.fit(data[0], y, batch_size=8, verbose=0)
    with pytest.raises(ValueError, match=r"validation_data\[1\]: expected labels 0 to 2. Received: 77"):
        model.fit(*data, validation_data=(data[0], y), verbose=0)
    with pytest.raises(ValueError, match=r"validation_data\[1\]: expected 300 rows"):
        model.fit(*data, validation_data=(data[0], y[:5]), verbose=0)
    assert all((a == b).all() for a, b in zip(weights, model.get_weights(), strict=True))


def test_a_layer_added_after_compile_is_trained(data):
    model = nn.Sequential([nn.Input((4,)), nn.Dense(8, activation="relu")])
    model.compile("sgd", "sparse_categorical_crossentropy", fuse=False)
    model.add(nn.Dense(3, activation="softmax"))
    before = model.layers[1].weight.data.copy()
    model.fit(*data, verbose=0)
    assert (model.layers[1].weight.data != before).any()
    assert not model.layers[1].fuse


def test_an_optimizer_belongs_to_one_model(model):
    other = nn.Sequential([nn.Input((4,)), nn.Dense(3)])
    with pytest.raises(ValueError, match="Make one optimizer per model"):
        other.compile(model.optimizer, "mse")
    model.compile(model.optimizer)


def test_set_weights_changes_all_or_none(model):
    before = model.get_weights()
    broken = [np.ones((4, 8)), np.array(["a"] * 8), *before[2:]]
    with pytest.raises(ValueError, match=r"weights\[1\]: expected an array of numbers"):
        model.set_weights(broken)
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


def test_more_than_a_thousand_parameters_keep_their_order(tmp_path):
    model = nn.Sequential([nn.Input((1,)), *(nn.Dense(1, use_bias=False) for _ in range(1003))])
    model.set_weights([np.full((1, 1), i) for i in range(1003)])
    model.save(tmp_path / "deep")
    assert [w.item() for w in nn.load_model(tmp_path / "deep").get_weights()] == list(range(1003))


def test_a_damaged_description_is_one_error_with_its_path(model, tmp_path):
    for damaged in ("{", "[" * 100_000, "[]", "7", "null", '{"input_shape": [2], "layers": {"a": 1}}'):
        write_model(tmp_path / "m", damaged, [])
        with pytest.raises(ValueError, match="path: expected a description of a model.*m'"):
            nn.load_model(tmp_path / "m")


def test_a_flipped_bit_is_an_error_that_names_the_file(model, tmp_path):
    model.save(tmp_path / "m")
    whole = (tmp_path / "m").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    generator = np.random.default_rng(0)
    for bit in [*generator.integers(0, 8 * header, 300), *generator.integers(8 * header, 8 * len(whole), 50)]:
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "flipped").write_bytes(flipped)
        with pytest.raises(ValueError, match="^path: expected .*flipped'"):
            nn.load_model(tmp_path / "flipped")


def dense(units, name="a", **config):
    return {"class": "Dense", "config": {"units": units, "name": name, **config}}


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([dense(10**9)], r"weights of shape \(2, 1000000000\). Received: shape \(2, 1\)"),
        ([dense(10**30)], r"weights of shape \(2, 1000000000000000000000000000000\)"),
        ([dense(1), dense(10**9, "b")], r"weights of shape \(1, 1000000000\). Received: none"),
        ([], "as many arrays as the layers have. Received: 2, which is more"),
        ([{"class": "Conv2D", "config": {"filters": 9, "kernel_size": 9**9, "name": "a"}}], "description of a model"),
        ([dense(1, seven=7)], "seven"),
        ([{"class": "Dense", "config": [1]}], "description of a model"),
        ([{"class": "system", "config": {}}], "unknown layer class 'system'"),
    ],
)
def test_layers_that_the_weights_do_not_fit_take_no_memory(tmp_path, layers, message):
    described = {"name": "m", "input_shape": [2], "layers": layers, "compile": None}
    write_model(tmp_path / "m", described, [np.ones((2, 1)), np.ones(1)])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f"path: expected .*{message}"):
            nn.load_model(tmp_path / "m")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F16", "I32", "nonsense"])
def test_weights_of_another_dtype_are_one_error(tmp_path, dtype):
    described = {"name": "m", "input_shape": [2], "layers": [dense(1, use_bias=False)], "compile": None}
    write_model(tmp_path / "m", described, [np.ones((2, 1))], dtype)
    with pytest.raises(ValueError, match=f"path: expected weights of dtype F32. Received: .*m', of .*{dtype}"):
        nn.load_model(tmp_path / "m")


@pytest.mark.parametrize(
    "header",
    [b"[" * 100_000, b"[]", b"{}", b"7", b'{"a": 7}', b'{"__metadata__": 7}', b"\xff", b"NaN", b"{" + b" " * 99],
)
def test_a_header_of_any_kind_is_one_error(tmp_path, header):
    for size in (len(header), 2**64 - 1):
        (tmp_path / "m").write_bytes(size.to_bytes(8, "little") + header)
        with pytest.raises(ValueError, match="^path: expected a (safetensors file|file of format).*m'"):
            nn.load_model(tmp_path / "m")


def test_names_in_a_file_give_a_terminal_no_commands(tmp_path, capsys):
    described = {"name": "\x1b[2Jm", "input_shape": [2], "layers": [dense(1, "\x1b]0;x\x07[b]")], "compile": None}
    write_model(tmp_path / "m", described, [np.ones((2, 1)), np.ones(1)])
    model = nn.load_model(tmp_path / "m")
    model.summary()
    assert (model.name, model.layers[0].name) == (r"\x1b[2Jm", r"\x1b]0;x\x07[b]")
    assert "\x1b" not in capsys.readouterr().out


def test_a_loaded_model_has_weights_of_its_own_and_initializers_for_new_ones(model, tmp_path):
    model.save(tmp_path / "m")
    again = nn.load_model(tmp_path / "m")
    assert again.layers[0].kernel_initializer == "glorot_uniform"
    assert all(p.data.flags.writeable and p.data.flags.owndata for p in again.parameters())


def test_a_saved_file_has_the_rights_of_any_new_file(model, tmp_path):
    (tmp_path / "plain").touch()
    model.save(tmp_path / "m")
    assert (tmp_path / "m").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_mean_absolute_error_broadcasts_nothing(generator):
    y, predictions = generator.standard_normal(5), generator.standard_normal((5, 1))
    assert nn.metrics.mean_absolute_error(y, predictions) == pytest.approx(np.abs(y - predictions[:, 0]).mean())
    with pytest.raises(ValueError, match=r"y_true: expected shape \(5, 5\)"):
        nn.metrics.mean_absolute_error(y, generator.standard_normal((5, 5)))


@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
def test_a_batch_of_no_images_passes_through(name):
    model = getattr(nn.models, name)()
    result = model(np.zeros((0, *model.input_shape)), training=True)
    assert result.shape == (0, 10)
    result.backward(np.zeros((0, 10)))
    assert all(not parameter.grad.any() for parameter in model.parameters())


def test_summary_says_which_algorithm_and_why():
    lines = []
    nn.models.cnn().summary(lines.append, batch_size=128)
    text = " ".join(lines[0].split())
    assert "conv2d, batch of 128: direct (" in text
    assert "conv2d_1, batch of 128: winograd (estimated " in text
    with nn.conv.use("im2col"):
        nn.models.cnn().summary(lines.append)
    assert "conv2d_1, batch of 32: im2col (asked for by name)" in " ".join(lines[1].split())


@pytest.mark.parametrize(
    "first",
    [
        lambda model, x, y: model.train_on_batch(x, y),
        lambda model, x, y: model.build(x.shape[1:]),
        lambda model, x, y: model.predict(x),
        lambda model, x, y: model.evaluate(x, y, verbose=0),
        lambda model, x, y: model(x),
        lambda model, x, y: model.fit(x, y, verbose=0),
    ],
)
def test_a_model_that_is_compiled_before_it_is_built_trains(first, generator):
    x, y = generator.standard_normal((8, 3)).astype(np.float32), np.arange(8) % 2
    model = nn.Sequential([nn.Dense(2, activation="softmax")])
    model.compile()
    first(model, x, y)
    before = model.get_weights()
    model.fit(x, y, verbose=0)
    assert all((a != b).any() for a, b in zip(model.get_weights(), before, strict=True))


def test_a_build_that_fails_leaves_nothing_built(generator):
    model = nn.Sequential([nn.Conv2D(2, 3), nn.Conv2D(3, 3)])
    with pytest.raises(ValueError, match="kernel no larger than the padded input"):
        model(generator.standard_normal((1, 3, 3, 1)))
    assert not model.layers[0].built
    assert model(generator.standard_normal((1, 9, 9, 1))).shape == (1, 5, 5, 3)
    assert model.count_params() == 2 * 10 + 3 * 19


def test_a_layer_whose_build_failed_has_its_parameters_once():
    class Late(nn.layers.Layer):
        fails = True

        def make_parameters(self, input_shape):
            self.add_parameter("weight", input_shape, "zeros")

        def output_shape_for(self, input_shape):
            if self.fails:
                raise ValueError("not yet")
            return input_shape

    layer = Late()
    with pytest.raises(ValueError, match="not yet"):
        layer.build((3,))
    layer.fails = False
    layer.build((3,))
    assert layer.count_params() == 3


def test_accuracy_of_one_probability_counts_from_a_half(generator):
    outputs, labels = np.array([[0.2], [0.7], [0.6], [0.1]]), np.array([0, 1, 0, 1])
    assert nn.metrics.accuracy(labels, outputs) == nn.metrics.accuracy(labels[:, None], outputs) == 0.5
    with pytest.raises(ValueError, match=r"y_pred: expected shape \(n, classes\).*\(2, 3, 4\)"):
        nn.metrics.accuracy(np.zeros((2, 3)), np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match=r"y_pred: expected shape \(n, classes\), n at least 1.*\(0, 3\)"):
        nn.metrics.accuracy(np.zeros(0), np.zeros((0, 3)))


def test_a_layer_is_added_without_a_look_at_all_the_others():
    """Or a model of n layers takes n * n steps to make."""

    class Layers(list):
        def __iter__(self):
            raise AssertionError("all layers were looked at")

    model = nn.Sequential([nn.Input((2,))])
    model._layers = Layers()
    for layer in (nn.Dense(2), nn.Dense(2), nn.Dense(2, name="dense_2"), nn.Dense(2)):
        model.add(layer)
    assert [model._layers[i].name for i in range(4)] == ["dense", "dense_1", "dense_2", "dense_3"]


# What is not trained -----------------------------------------------------------------------------------------------


def two_convolutions(algorithm="auto", fuse=True):
    model = nn.Sequential(
        [
            nn.Input((20, 20, 1)),
            nn.Conv2D(4, 3, activation="relu", algorithm=algorithm),
            nn.Conv2D(4, 3, activation="relu", algorithm=algorithm),
            nn.MaxPooling2D(2),
            nn.Flatten(),
            nn.Dense(6, activation="relu"),
            nn.Dense(3),
        ]
    )
    model.compile(nn.SGD(0.1), "mse", fuse=fuse)
    return model, [layer for layer in model.layers if layer.count_params()]


def torch_gradients(weights, x, y, frozen):
    """Of the two convolutions and two dense layers, by PyTorch in float64; None for those of a frozen layer."""
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    layout = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
    back = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
    parameters = [torch.tensor(np.ascontiguousarray(w.transpose(layout[w.ndim]))).double() for w in weights]
    for i, parameter in enumerate(parameters):
        parameter.requires_grad_(i // 2 not in frozen)
    w1, b1, w2, b2, w3, b3, w4, b4 = parameters
    y1 = F.relu(F.conv2d(torch.tensor(x).double().permute(0, 3, 1, 2), w1, b1))
    y2 = F.max_pool2d(F.relu(F.conv2d(y1, w2, b2)), 2).permute(0, 2, 3, 1).flatten(1)
    result = F.linear(F.relu(F.linear(y2, w3, b3)), w4, b4)
    F.mse_loss(result, torch.tensor(y).double()).backward()
    return [None if p.grad is None else p.grad.numpy().transpose(back[p.ndim]) for p in parameters]


@pytest.mark.parametrize("frozen", [(0,), (1,), (0, 2), (3,), (0, 1)])
@pytest.mark.parametrize(
    ("algorithm", "fuse"),
    [("auto", True), ("auto", False), ("direct", True), ("lanes", True), ("winograd", True), ("im2col", True)],
)
def test_what_is_before_a_frozen_layer_learns_as_in_torch(algorithm, fuse, frozen, generator):
    model, holders = two_convolutions(algorithm, fuse)
    x = generator.standard_normal((32, 20, 20, 1)).astype(np.float32)
    y = generator.standard_normal((32, 3)).astype(np.float32)
    before = model.get_weights()
    for i in frozen:
        holders[i].trainable = False
    model.train_on_batch(x, y)
    expected = torch_gradients(before, x, y, frozen)
    for parameter, old, gradient in zip(model.parameters(), before, expected, strict=True):
        if gradient is None:
            assert parameter.grad is None
            assert (parameter.data == old).all()
        else:
            np.testing.assert_allclose(parameter.grad, gradient, atol=1e-5)
            np.testing.assert_allclose(parameter.data, old - 0.1 * gradient, atol=1e-5)


@pytest.mark.parametrize("frozen", range(4))
def test_no_weight_gradient_of_a_frozen_layer_is_computed(frozen, generator):
    from nnlite.runtime import scopes

    model, holders = two_convolutions()
    assert any(run.is_pair for run in model.fused(32))
    holders[frozen].trainable = False
    computed = []

    class Listener:
        def enter(self, layer, part):
            computed.extend((name, part) for name in (layer or "").split("+"))
            return 0

        def leave(self, depth=0):
            pass

    with scopes.listening(Listener()):
        model.train_on_batch(generator.standard_normal((32, 20, 20, 1)), generator.standard_normal((32, 3)))
    both = {name for name, part in computed if part in ("grad_weight", "gradients")}
    names = {layer.name for layer in holders}
    assert both & names == names - {holders[frozen].name}  # a pooling in one kernel with a convolution has none


def test_trainable_is_obeyed_from_the_next_step_on(model, data):
    x, y = data[0][:64], data[1][:64]
    first, last = model.layers[0], model.layers[2]
    moved = []
    for trainable in (True, False, True):
        first.trainable = trainable
        before = first.weight.data.copy(), last.weight.data.copy()
        model.train_on_batch(x, y)
        moved.append(((first.weight.data != before[0]).any(), (last.weight.data != before[1]).any()))
    assert moved == [(True, True), (False, True), (True, True)]


def test_a_gradient_of_before_does_not_move_what_is_frozen_meanwhile(model, data):
    loss = nn.losses.sparse_categorical_crossentropy(data[1], model(data[0], training=True))
    loss.backward()
    before = model.get_weights()
    model.trainable = False
    model.optimizer.step()
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


def test_a_network_of_which_nothing_is_trained_is_evaluated_and_not_fitted(model, data):
    expected = model.evaluate(*data, verbose=0)
    model.trainable = False
    assert not model.trainable
    assert model.evaluate(*data, verbose=0) == expected
    with pytest.raises(ValueError, match="expected a layer with trainable parameters. Received: none"):
        model.fit(*data, verbose=0)
    model.compile("adam")  # a fresh optimizer takes them too
    model.layers[0].trainable = True
    assert model.trainable
    model.fit(*data, verbose=0)


def test_a_saved_model_stays_frozen(model, data, tmp_path):
    model.layers[0].trainable = False
    model.save(tmp_path / "m")
    again = nn.load_model(tmp_path / "m")
    assert [layer.trainable for layer in again.layers] == [False, True, True]
    before = again.get_weights()
    again.fit(*data, verbose=0)
    assert [(a == b).all() for a, b in zip(before, again.get_weights(), strict=True)] == [True, True, False, False]


def test_trainable_is_told_a_layer_when_it_is_made():
    layer = nn.Dense(2, trainable=False)
    layer.build((3,))
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    assert layer.count_params() == 8


def test_summary_says_what_is_trained(model):
    lines = []
    model.layers[0].trainable = False
    model.summary(lines.append)
    assert "Trainable params: 27 (0.11 KiB)\nNon-trainable params: 40 (0.16 KiB)" in lines[0]


# Attributes and representations ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: setattr(m, "learning_rate", 1), "of Sequential 'learning_rate': expected one of .*loss"),
        (lambda m: setattr(m, "trainabel", 1), "Did you mean 'trainable'"),
        (lambda m: setattr(m.layers[0], "trainabel", False), "of Dense 'trainabel'.*Did you mean 'trainable'"),
        (lambda m: setattr(m.layers[1], "rates", 0.1), "of Dropout 'rates'.*Did you mean 'rate'"),
        (lambda m: setattr(m.optimizer, "lr", 1), "of RMSprop 'lr'.*Did you mean 'learning_rate'"),
        (lambda m: setattr(nn.History(), "historie", {}), "of History 'historie'.*Did you mean 'history'"),
        (lambda m: setattr(nn.conv.get("im2col"), "use_blas", 1), "of Im2col 'use_blas'.*Did you mean 'uses_blas'"),
        (lambda m: setattr(m.parameters()[0], "gard", 1), "gard"),
        (lambda m: setattr(nn.conv.Geometry((1, 3, 3, 1), (1, 1, 1, 1)), "stride", 1), "stride"),
    ],
)
def test_an_attribute_that_does_not_exist_is_refused(model, change, message):
    with pytest.raises(AttributeError, match=message):
        change(model)


def test_trainable_is_true_or_false(model):
    with pytest.raises(ValueError, match="trainable: expected True or False. Received: 0"):
        model.layers[0].trainable = 0
    with pytest.raises(ValueError, match="trainable: expected True or False. Received: 'no'"):
        model.trainable = "no"


def test_a_class_of_ones_own_makes_its_attributes_in_any_method():
    class Mine(nn.Layer):
        def __init__(self):
            super().__init__()
            self.factor = 2

        def make_parameters(self, input_shape):
            self.scale = self.add_parameter("scale", input_shape, "ones")

        def call(self, x, training):
            self.seen = len(x)
            return x * self.scale * self.factor

    layer = Mine()
    assert layer(np.ones((3, 2))).numpy().tolist() == [[2, 2]] * 3
    layer.factor, layer.seen = 3, 0
    with pytest.raises(AttributeError, match="of Mine 'faktor'.*Did you mean 'factor'"):
        layer.faktor = 3

    class Slow(nn.SGD):
        def __init__(self):
            super().__init__(0.1)
            self.steps_left = 5

    with pytest.raises(AttributeError, match="Did you mean 'steps_left'"):
        Slow().step_left = 3


def test_objects_say_how_they_are_made(model, data):
    assert repr(model) == (
        "Sequential([\n"
        "    Input(shape=(4,)),\n"
        "    Dense(units=8, activation='relu', name='dense'),\n"
        "    Dropout(rate=0.1, name='dropout'),\n"
        "    Dense(units=3, activation='softmax', name='dense_1'),\n"
        "], name='sequential')"
    )
    assert repr(nn.Conv2D(3, 2, groups=3, trainable=False)) == (
        "Conv2D(filters=3, kernel_size=(2, 2), groups=3, trainable=False)"
    )
    assert repr(nn.SGD(0.5)) == "SGD(learning_rate=0.5, momentum=0.0, nesterov=False)"
    made = eval(repr(model), vars(nn).copy())
    assert repr(made) == repr(model)
    history = model.fit(*data, epochs=2, verbose=0)
    last = {name: values[-1] for name, values in history.history.items()}
    assert repr(history) == f"<History of 2 epochs; last: loss: {last['loss']:.4f} - accuracy: {last['accuracy']:.4f}>"


def test_a_summary_is_shown_once_in_a_notebook(model, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("rich.jupyter.display", lambda *arguments: shown.append(arguments))
    model.summary()
    assert shown == []
    assert capsys.readouterr().out.count('Model: "sequential"') == 1


@pytest.mark.parametrize(("verbose", "times"), [(2, 1), (0, 0)])
def test_fit_says_that_kernels_compile(verbose, times, data, capsys):
    from nnlite.compiler.compilation import ENABLED, jit

    class Compiles(nn.Layer):
        def call(self, x, training):
            jit(lambda a: a + 1)(1)
            jit(lambda a: a + 2)(1)
            return x

    model = nn.Sequential([nn.Input((4,)), Compiles(), nn.Dense(3, activation="softmax")])
    model.compile("sgd")
    model.fit(*data, epochs=2, verbose=verbose)
    assert capsys.readouterr().err.count("compiling kernels") == times * ENABLED


def test_predict_says_how_fast_if_it_is_asked(model, data, capsys):
    model.predict(data[0])
    assert capsys.readouterr().out == ""
    model.predict(data[0], verbose=1)
    assert re.fullmatch(r"300 samples - [\d.]+ s - [\d,]+ samples/s\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: setattr(m.layers[0], "units", 9),
            "units: expected it unchanged: this Dense is built.*Received: 9",
        ),
        (lambda m: setattr(m.layers[2], "use_bias", False), "use_bias: expected it unchanged: this Dense is built"),
        (lambda m: setattr(m, "input_shape", (9,)), "input_shape: expected it unchanged: this Sequential is built"),
        (
            lambda m: setattr(nn.models.cnn().layers[0], "padding", "same"),
            "padding: expected it unchanged: this Conv2D is built",
        ),
        (
            lambda m: setattr(nn.models.cnn().layers[2], "strides", (1, 1)),
            "strides: expected it unchanged: this MaxPooling2D is built",
        ),
        (
            lambda m: setattr(m.layers[0], "weight", nn.Tensor(np.ones((2, 2)))),  # which no optimizer would train
            r"weight: expected it unchanged: this Dense is built; write into weight.data, .*Received: Tensor\(",
        ),
        (
            lambda m: setattr(nn.models.cnn().layers[0], "bias", None),
            "bias: expected it unchanged: this Conv2D is built",
        ),
        (lambda m: setattr(m, "layers", []), r"layers: expected it unchanged: .*`add` appends one.*Received: \[\]"),
        (lambda m: setattr(m, "output_shape", (3,)), "output_shape: expected it unchanged: it is computed"),
        (lambda m: setattr(m.layers[0], "built", False), "built: expected it unchanged: it is computed"),
        (lambda m: setattr(m.optimizer, "parameters", []), "parameters: expected it unchanged: .*of `build`"),
    ],
)
def test_what_a_layer_model_or_optimizer_was_built_with_stays(model, change, message):
    with pytest.raises(AttributeError, match=message):
        change(model)
    with pytest.raises(TypeError, match="does not support item assignment"):
        model.layers[0] = nn.Dense(3)
    with pytest.raises(TypeError, match="does not support item assignment"):
        model.optimizer.parameters[0] = nn.Tensor([1.0])
    layer = nn.Dense(3)
    layer.units = 5
    layer.build((2,))
    assert layer.weight.shape == (2, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: setattr(m.layers[0], "activation", "rely"), "unknown activation 'rely'.*Did you mean 'relu'"),
        (lambda m: setattr(m.layers[0], "fuse", "no"), "fuse: expected True or False"),
        (lambda m: setattr(m, "fuse", None), "fuse: expected True or False"),
        (lambda m: setattr(m, "loss", "sparse"), "unknown loss 'sparse'"),
        (lambda m: setattr(m, "optimizer", "adamw"), "unknown optimizer 'adamw'.*Did you mean 'adam'"),
        (lambda m: setattr(nn.Dropout(0.5), "rate", 1.5), r"rate: expected a number in \[0, 1\)"),
        (lambda m: setattr(nn.SGD(), "momentum", -1), r"momentum: expected a number in \[0, 1\)"),
        (lambda m: setattr(nn.SGD(), "nesterov", 1), "nesterov: expected True or False"),
        (lambda m: setattr(nn.Adam(), "beta_2", 1.0), r"beta_2: expected a number in \[0, 1\)"),
        (lambda m: setattr(nn.Adadelta(), "epsilon", 0), "epsilon: expected a finite number above 0"),
        (lambda m: setattr(nn.RMSprop(), "rho", "0.9"), r"rho: expected a number in \[0, 1\)"),
    ],
)
def test_a_changed_attribute_is_checked_as_the_argument_of_its_name(model, change, message):
    with pytest.raises(ValueError, match=message):
        change(model)


def test_an_activation_or_a_loss_can_be_changed_by_name(model, data):
    x = data[0]
    before = model.predict(x)
    model.layers[0].activation, model.loss = "tanh", "sparse_categorical_crossentropy"
    assert model.layers[0].activation is nn.ops.tanh
    assert model.loss is nn.losses.sparse_categorical_crossentropy
    hidden = np.tanh(x @ model.layers[0].weight.data + model.layers[0].bias.data)
    np.testing.assert_allclose(nn.Sequential(model.layers[:1]).predict(x), hidden, atol=1e-5)
    assert not np.array_equal(model.predict(x), before)


# Networks that are not for digits ----------------------------------------------------------------------------------


def softmax(units=3):
    return nn.Dense(units, activation="softmax")


SHAPES = {
    "one feature": ((1,), lambda: [nn.Dense(4, activation="relu"), softmax()]),
    "a sequence": ((4, 6), lambda: [nn.Dense(5, activation="relu"), nn.Flatten(), softmax()]),
    "colour images": (
        (32, 32, 3),
        lambda: [nn.Conv2D(4, 3, activation="relu"), nn.MaxPooling2D(), nn.Flatten(), softmax()],
    ),
    "one pixel": ((1, 1, 1), lambda: [nn.Conv2D(4, 1, activation="relu"), nn.Flatten(), softmax()]),
    "one pixel, padded twice": (
        (1, 1, 3),
        lambda: [*(nn.Conv2D(k, 3, padding="same", activation="relu") for k in (4, 20)), nn.Flatten(), softmax()],
    ),
    "one row": ((1, 50, 1), lambda: [nn.Conv2D(4, (1, 5)), nn.MaxPooling2D((1, 2)), nn.Flatten(), softmax()]),
    "groups": ((8, 8, 4), lambda: [nn.Conv2D(4, 3, groups=2), nn.Conv2D(8, 3, groups=4), nn.Flatten(), softmax()]),
    "pooling first": (
        (8, 8, 1),
        lambda: [nn.MaxPooling2D(), nn.Dropout(0.1), nn.Conv2D(2, 3), nn.Flatten(), softmax()],
    ),
}


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("name", SHAPES)
def test_networks_of_other_shapes_train_predict_and_are_saved(name, batch_size, generator, tmp_path):
    shape, layers = SHAPES[name]
    model = nn.Sequential([nn.Input(shape), *layers()])
    model.compile("adam", metrics=["accuracy"])
    x, y = generator.standard_normal((5, *shape)), generator.integers(0, 3, 5)
    history = model.fit(x, y, batch_size, epochs=2, verbose=0, validation_data=(x[:1], y[:1]))
    assert np.isfinite(history.history["val_loss"]).all()
    probabilities = model.predict(x, batch_size)
    np.testing.assert_allclose(probabilities, [model.predict(sample[None])[0] for sample in x], atol=1e-5)
    loss, accuracy = model.evaluate(x, y, batch_size, verbose=0)
    assert loss == pytest.approx(-np.log(probabilities[np.arange(5), y]).mean(), rel=1e-4)
    assert accuracy == (probabilities.argmax(1) == y).mean()
    model.save(tmp_path / "m")
    assert (nn.load_model(tmp_path / "m").predict(x, batch_size) == probabilities).all()
    model.summary(lambda text: None, batch_size)


def test_a_number_for_each_sample_is_the_target_of_one_output(generator):
    x, y = generator.standard_normal((6, 4)), generator.standard_normal(6)
    model = nn.Sequential([nn.Input((4,)), nn.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    model.fit(x, y, batch_size=4, verbose=0)
    loss, error = model.evaluate(x, y, verbose=0)
    assert loss == pytest.approx(((model.predict(x)[:, 0] - y) ** 2).mean(), rel=1e-5)
    assert error == pytest.approx(abs(model.predict(x)[:, 0] - y).mean(), rel=1e-5)
    assert model.evaluate(x, y[:, None], verbose=0) == [loss, error]


@pytest.mark.parametrize("loss", ["mse", "categorical_crossentropy"])
def test_targets_of_another_shape_are_named_before_the_first_step(loss, generator):
    model = nn.Sequential([nn.Input((4,)), nn.Dense(3, activation="softmax")])
    model.compile("sgd", loss)
    with pytest.raises(ValueError, match=r"^y: expected shape \(6, 3\). Received: shape \(6, 2\)"):
        model.fit(generator.standard_normal((6, 4)), np.zeros((6, 2)), verbose=0)


def test_a_model_without_parameters_is_evaluated_and_not_fitted(generator):
    model = nn.Sequential([nn.Input((3,)), nn.Activation("softmax")])
    model.compile()
    x, y = generator.standard_normal((5, 3)), np.arange(5) % 3
    assert model.evaluate(x, y, verbose=0) == pytest.approx(-np.log(model.predict(x)[np.arange(5), y]).mean(), rel=1e-5)
    with pytest.raises(ValueError, match="expected a layer with trainable parameters"):
        model.fit(x, y, verbose=0)


@pytest.mark.parametrize("method", ["fit", "evaluate", "train_on_batch", "predict"])
def test_no_samples_are_an_error(model, method):
    arguments = (np.zeros((0, 4)), np.zeros(0, np.int64))[: 1 if method == "predict" else 2]
    with pytest.raises(ValueError, match=r"x: expected at least one sample. Received: shape \(0, 4\)"):
        getattr(model, method)(*arguments)
