"""Models keep: every way of storing one gives back its bits, and bad files are refused."""

import io
import json
import os
import pickle
import struct
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
import skops.io
from safetensors.numpy import load_file, save_file
from skorch.callbacks import EpochTimer

import skae
from skae import Autoencoder, files

DATA = Path(__file__).parent / "data"

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 2)) @ RNG.normal(size=(2, 5)) + 0.1 * RNG.normal(size=(80, 5))


def fitted(**parameters):
    defaults = {"hidden_layer_sizes": (6,), "max_epochs": 3, "random_state": 0}
    return Autoencoder(2, **(defaults | parameters)).fit(X)


def answers(model):
    """Everything a fitted model says, as one vector."""
    return np.concatenate(
        [
            model.transform(X).ravel(),
            model.reconstruct(X).ravel(),
            model.score_samples(X),
            model.sample(3, random_state=0).ravel(),
            model.loss_curve_,
            model.validation_curve_,
            np.atleast_1d(model.noise_variance_),
        ]
    )


def by_pickle(model, folder):
    return pickle.loads(pickle.dumps(model))


def by_joblib(model, folder):
    joblib.dump(model, folder / "model.joblib")
    return joblib.load(folder / "model.joblib")


def by_skops(model, folder):
    file = skops.io.dumps(model)
    return skops.io.loads(file, trusted=skops.io.get_untrusted_types(data=file))


def by_save(model, folder):
    model.save(folder / "model.safetensors")
    return skae.load(folder / "model.safetensors")


WAYS = [by_pickle, by_joblib, by_skops, by_save]

MODELS = {
    "default": {},
    "linear": {"hidden_layer_sizes": ()},
    "overcomplete, tied": {"tied_weights": True, "linear_skip": False},
    "float32, diagonal noise": {"precision": "float32", "noise": "diagonal"},
    "warm start": {"warm_start": True},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("parameters", MODELS.values(), ids=MODELS)
def test_every_round_trip_keeps_the_bits(way, parameters, tmp_path):
    model = fitted(**parameters)
    again = way(model, tmp_path)
    assert type(again) is Autoencoder
    assert again.get_params() == model.get_params()
    assert vars(again).keys() == vars(model).keys()
    np.testing.assert_array_equal(answers(again), answers(model))
    np.testing.assert_array_equal(
        answers(again.partial_fit(X[::-1])), answers(model.partial_fit(X[::-1]))
    )


@pytest.mark.parametrize("way", WAYS)
def test_names_outputs_and_random_states_are_kept(way, tmp_path):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X, columns=list("abcde"))
    model = Autoencoder(2, max_epochs=1, random_state=np.random.RandomState(3))
    model.set_output(transform="pandas").fit(table)
    again = way(model, tmp_path)
    pandas.testing.assert_frame_equal(again.transform(table), model.transform(table))
    assert again.random_state.randint(10**9) == model.random_state.randint(10**9)
    with pytest.raises(ValueError, match="feature names"):
        again.transform(table[list("baced")])


@pytest.mark.parametrize("way", WAYS)
def test_an_unfitted_one_is_kept(way, tmp_path):
    model = Autoencoder(0.9, hidden_layer_sizes=(3,), noise=0.5)
    assert way(model, tmp_path).get_params() == model.get_params()


@pytest.mark.parametrize("way", WAYS)
def test_parameters_set_after_the_fit_do_not_change_the_model(way, tmp_path):
    model = fitted()
    expected = answers(model)
    model.set_params(hidden_layer_sizes=(9, 9), likelihood="bernoulli", precision="float32")
    again = way(model, tmp_path)
    np.testing.assert_array_equal(answers(again), expected)
    assert again.hidden_layer_sizes == (9, 9)


@pytest.mark.parametrize(
    ("parameters", "passes", "times"),
    [({}, 0, 1.3), ({}, 2, 3.4), ({"warm_start": True}, 0, 3.4)],
)
def test_a_pickle_is_small(parameters, passes, times):
    """Weights, and after a fit that may go on, what the optimiser remembers of each."""
    model = Autoencoder(2, max_epochs=2, random_state=0, **parameters).fit(X)
    for _ in range(passes):
        model.partial_fit(X)
    weights = sum(p.numel() * p.element_size() for p in model.module_.parameters())
    assert weights > 500_000
    assert len(pickle.dumps(model)) <= times * weights + 100_000


def test_a_pickle_holds_no_torch_objects():
    """It can be unpickled, and looked into, by whatever torch is there."""

    modules = set()

    class Finder(pickle.Unpickler):
        def find_class(self, module, name):
            modules.add(module.split(".")[0])
            return super().find_class(module, name)

    Finder(io.BytesIO(pickle.dumps(fitted().partial_fit(X)))).load()
    assert "numpy" in modules
    assert not {"torch", "skorch"} & modules


def test_saving_leaves_no_other_file(tmp_path):
    model = fitted()
    for _ in range(2):
        model.save(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.skipif(not hasattr(os, "umask"), reason="needs umask")
def test_others_may_read_a_saved_file_as_any_other(tmp_path):
    (tmp_path / "text").write_text("")
    fitted().save(tmp_path / "model")
    assert (tmp_path / "model").stat().st_mode == (tmp_path / "text").stat().st_mode


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model"
    fitted().save(path)
    before = path.read_bytes()

    def no_space(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(files.os, "fsync", no_space)
    with pytest.raises(OSError, match="no space"):
        fitted(random_state=1).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_saved_is_named(tmp_path):
    model = fitted(corruption=lambda x, generator: x, callbacks=[EpochTimer()])
    with pytest.warns(UserWarning, match="callbacks, corruption"):
        model.save(tmp_path / "model")
    again = skae.load(tmp_path / "model")
    assert again.corruption is None
    assert again.callbacks is None
    np.testing.assert_array_equal(answers(again), answers(model))


def test_foreign_attributes_and_generators_are_named(tmp_path):
    model = fitted()
    model.note = "v1"
    model.random_state = np.random.RandomState(np.random.PCG64(1))
    with pytest.warns(UserWarning, match="note, random_state"):
        model.save(tmp_path / "model")
    np.testing.assert_array_equal(answers(skae.load(tmp_path / "model")), answers(model))


class Mine(Autoencoder):
    """A user's own."""


def test_only_own_estimators_are_saved(tmp_path):
    with pytest.raises(TypeError, match="pickle"):
        Mine(2).save(tmp_path / "model")


def test_a_model_of_an_absent_device_loads_on_the_processor(tmp_path):
    model = fitted()
    model._fit_params_["device"] = model.device = "cuda:7"
    for way in WAYS:
        again = way(model, tmp_path)
        assert again.module_.center.device.type == "cpu"
        assert np.isfinite(again.transform(X)).all()


# ------------------------------------------------------------------ bad files


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    fitted().save(path)
    return path


def header_of(path):
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size])["__metadata__"]


def forge(path, change, arrays=None):
    """Rewrite a saved file as someone who knows the format would; its checksum is right."""
    tensors, header = load_file(path), header_of(path)
    if arrays:
        tensors = arrays(tensors)
    tree = json.loads(header["tree"])
    changed = change(tree)
    header["tree"] = json.dumps(tree if changed is None else changed)
    header["sha256"] = files._digest(header["tree"], tensors)
    save_file(tensors, path, header)


def entry(tree, *names):
    """A container inside a tree of tagged dicts."""
    for name in names:
        tree = tree["dict"][name]
    return tree["dict"]


def test_forging_works(saved):
    """Else the tests below would prove nothing."""
    forge(saved, lambda tree: entry(tree, "state").update(verbose=1))
    assert skae.load(saved).verbose == 1


def overwrite(content):
    return lambda path: path.write_bytes(content)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(bytes(content))


def state(**values):
    return lambda path: forge(path, lambda tree: entry(tree, "state").update(values))


def wild_generator(position):
    """A generator's state whose position lies outside it."""

    def change(tree):
        keys = {"array": "0"}
        content = {"tuple": ["MT19937", keys, position, 0, 0.0]}
        entry(tree, "state").update(random_state={"RandomState": content})

    return change


def later_format(path):
    tensors, header = load_file(path), header_of(path)
    save_file(tensors, path, header | {"skae": "999"})


BAD_FILES = {
    "empty": (overwrite(b""), "damaged"),
    "text": (overwrite(b"codes, codes, codes" * 10), "damaged"),
    "a pickle": (overwrite(pickle.dumps({"a": 1})), "damaged"),
    "huge header": (overwrite(struct.pack("<Q", 2**62) + b"{}"), "damaged"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-100]), "damaged"),
    "cut in the header": (lambda path: path.write_bytes(path.read_bytes()[:50]), "damaged"),
    "bit flipped": (flip_a_bit, "checksum"),
    "another's": (lambda path: save_file({"w": np.ones(3)}, path), "no estimator of skae"),
    "a checkpoint": (lambda path: files.write(path, "checkpoint", {}), "no estimator of skae"),
    "later": (later_format, "Install a later skae"),
    "no tree": (lambda path: forge(path, lambda tree: [1]), "make no sense"),
    "unknown tag": (lambda path: forge(path, lambda tree: {"eval": "1"}), "make no sense"),
    "two tags": (lambda path: forge(path, lambda tree: {"a": 1, "b": 2}), "make no sense"),
    "unknown array": (state(n_components={"array": "999"}), "make no sense"),
    "unknown class": (
        lambda path: forge(path, lambda tree: tree["dict"].update({"class": "Popen"})),
        "no estimator 'Popen'",
    ),
    "abstract class": (
        lambda path: forge(path, lambda tree: tree["dict"].update({"class": "BaseAutoencoder"})),
        "make no sense",
    ),
    "a method": (state(transform="print"), "no 'transform'"),
    "dunder": (state(__class__="print"), "no '__class__'"),
    "bad parameter": (state(trim=7.0), "'trim' parameter"),
    "wrong type": (state(hidden_layer_sizes="many"), "'hidden_layer_sizes' parameter"),
    "other columns": (state(n_features_in_=4), "make no sense"),
    "columns without number": (state(n_features_in_=10**15), "make no sense"),
    "columns as text": (state(n_features_in_="five"), "make no sense"),
    "wild generator": (
        lambda path: forge(path, wild_generator(10**8)),
        "make no sense",
    ),
    "wilder generator": (lambda path: forge(path, wild_generator(10**30)), "make no sense"),
    "bad fitted parameter": (
        lambda path: forge(
            path, lambda tree: entry(tree, "state", "_fit_params_").update(activation="nope")
        ),
        "'activation' parameter",
    ),
    "huge network": (
        lambda path: forge(
            path,
            lambda tree: entry(tree, "state", "_fit_params_").update(
                hidden_layer_sizes=[10**5, 10**5, 10**5]
            ),
        ),
        "make no sense",
    ),
    "no arrays": (state(_arrays={"dict": {}}), "make no sense"),
    "arrays as text": (state(_arrays="none"), "make no sense"),
    "odd dtype": (
        lambda path: forge(path, lambda tree: entry(tree, "state", "_arrays").update(dtype="nn")),
        "make no sense",
    ),
    "other shapes": (
        lambda path: forge(
            path, lambda tree: None, lambda arrays: {k: v.ravel() for k, v in arrays.items()}
        ),
        "make no sense",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_refused(saved, spoil, message):
    spoil(saved)
    with pytest.raises(ValueError, match=message):
        skae.load(saved)


def test_deep_nesting_is_refused(saved):
    depth = 10 * sys.getrecursionlimit()
    tensors, header = load_file(saved), header_of(saved)
    header["tree"] = "[" * depth + "]" * depth
    header["sha256"] = files._digest(header["tree"], tensors)
    save_file(tensors, saved, header)
    with pytest.raises(ValueError, match="make no sense"):
        skae.load(saved)


def test_absent_files_and_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        skae.load(tmp_path / "absent")
    with pytest.raises(ValueError, match="not a file of skae"):
        skae.load(tmp_path)


# -------------------------------------------------------------- first release


def test_the_first_releases_file_loads_for_ever():
    """Written by version 0.1.0: this file never changes, and what it says never does."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = skae.load(DATA / "release-0.1.0.safetensors")
    expected = np.load(DATA / "release-0.1.0.npz")
    rows = expected["rows"]
    assert list(model.feature_names_in_) == ["a", "b", "c", "d"]
    assert model.n_components == 2
    for name in ("transform", "reconstruct", "score_samples"):
        answer = getattr(model.set_output(transform="default"), name)(table(rows))
        np.testing.assert_allclose(answer, expected[name], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(model.loss_curve_, expected["loss_curve"])


def table(rows):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(rows, columns=list("abcd"))
