"""Models keep: every way of storing one gives back its bits, and bad files are refused."""

import errno
import io
import json
import os
import pickle
import re
import shutil
import struct
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import joblib
import numpy as np
import pytest
import skops.io
from forged_files import header_of, write_forged
from safetensors.numpy import load_file, save_file
from skorch.callbacks import EpochTimer
from small_models import AUTOENCODERS, for_each, tiny
from test_common import train

import skae
from skae import Autoencoder, files, inference
from skae.variants.conditioned import ConditionedAutoencoder

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
    model = Autoencoder(
        2, hidden_layer_sizes=(256, 128), max_epochs=2, random_state=0, **parameters
    )
    model.fit(X)
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


needs_posix = pytest.mark.skipif(os.name != "posix", reason="needs modes, links and signals")


@needs_posix
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_of_any_other(tmp_path, mask):
    before = os.umask(mask)
    try:
        (tmp_path / "text").write_text("")
        fitted().save(tmp_path / "model")
    finally:
        os.umask(before)
    assert (tmp_path / "model").stat().st_mode == (tmp_path / "text").stat().st_mode


@needs_posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444, 0o4755])
def test_an_existing_file_keeps_its_mode_and_its_owner(tmp_path, mode):
    path, model = tmp_path / "model", fitted()
    model.save(path)
    path.chmod(mode)
    if os.geteuid() == 0:
        os.chown(path, 12, 34)
        path.chmod(mode)
    before = path.stat()
    model.save(path)
    after = path.stat()
    assert after.st_ino != before.st_ino
    for name in ("st_mode", "st_uid", "st_gid"):
        assert getattr(after, name) == getattr(before, name)


@needs_posix
def test_others_never_read_a_file_that_replaces_a_private_one(tmp_path, monkeypatch):
    path, modes, fsync = tmp_path / "model", [], os.fsync
    fitted().save(path)
    path.chmod(0o600)

    def watched(descriptor):
        modes.append(os.fstat(descriptor).st_mode & 0o777)
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", watched)
    fitted().save(path)
    assert modes == [0o600]


@needs_posix
@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_keeps_pointing(tmp_path, exists):
    (tmp_path / "folder").mkdir()
    target, link, outer = tmp_path / "folder" / "target", tmp_path / "link", tmp_path / "outer"
    link.symlink_to(Path("folder") / "target")
    outer.symlink_to(link)
    if exists:
        target.write_text("old")
        target.chmod(0o640)
    model = fitted()
    model.save(outer)
    assert link.is_symlink()
    assert outer.is_symlink()
    assert not target.is_symlink()
    assert not exists or target.stat().st_mode & 0o777 == 0o640
    np.testing.assert_array_equal(answers(skae.load(target)), answers(model))
    assert [*(tmp_path / "folder").iterdir()] == [target]


@needs_posix
def test_what_is_no_regular_file_is_neither_replaced_nor_read(tmp_path):
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    for path in (pipe, folder, Path("/dev/null")):
        kind = path.stat().st_mode
        with pytest.raises(OSError, match=re.escape(f"Not a regular file: '{path}'")):
            fitted().save(path)
        with pytest.raises(ValueError, match=r"not a file of skae.* not a regular file"):
            skae.load(path)
        assert path.stat().st_mode == kind
    assert sorted(tmp_path.iterdir()) == [folder, pipe]


def test_errors_of_save_name_the_path_of_the_user(tmp_path):
    model = fitted()
    for path in (tmp_path / "absent" / "model", tmp_path / ("long" * 100)):
        with pytest.raises(OSError, match="Errno") as caught:
            model.save(path)
        assert caught.value.filename == str(path)
        assert ".part" not in str(caught.value)
    with pytest.raises(FileNotFoundError):
        model.save(tmp_path / "absent" / "model")


FOREIGN = ("other.0123456789abcdef.part", "model.part", "model.0123456789abcdef", "modelX.part")


@needs_posix
def test_files_of_killed_processes_are_removed_by_the_next_save(tmp_path):
    """But not those of processes that still write, nor others that merely look alike."""
    path, model = tmp_path / "model", fitted()
    for name in FOREIGN:
        (tmp_path / name).write_text("mine")
    (tmp_path / "model.00112233445566ff.part").write_text("left by a killed process")
    with files._temporary_file(path, 0o666) as (part, _):
        model.save(path)
        assert {p.name for p in tmp_path.iterdir()} == {*FOREIGN, "model", part.name}
    model.save(path)
    assert {p.name for p in tmp_path.iterdir()} == {*FOREIGN, "model"}


def save_for_ever(path, ready):
    while True:
        files.write(path, "test", ["x" * 10**6])
        ready.set()


@needs_posix
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("n_kills", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_a_kill_leaves_a_whole_file_and_nothing_else_for_long(tmp_path, n_kills):
    """Three processes save to one path; one after another is killed, and others follow them."""
    path, rng, context = tmp_path / "model", np.random.default_rng(0), get_context("fork")
    processes = []
    for i in range(n_kills):
        ready = context.Event()
        processes.append(context.Process(target=save_for_ever, args=(path, ready), daemon=True))
        processes[-1].start()
        assert ready.wait(60)
        if i >= 2:
            time.sleep(rng.uniform(0, 0.02))
            processes[i - 2].kill()
            processes[i - 2].join()
        files.read(path, "test")
    for process in processes:
        process.kill()
        process.join()
        files.read(path, "test")
    files.write(path, "test", [])
    assert [*tmp_path.iterdir()] == [path]


@needs_posix
def test_threads_that_save_to_one_path_leave_one_whole_file(tmp_path):
    path = tmp_path / "model"

    def save(i):
        for _ in range(10):
            files.write(path, "test", [i] * 1000)
            [*numbers] = files.read(path, "test")[1]
            assert len({*numbers}) == 1

    with ThreadPoolExecutor(8) as pool:
        [*_] = pool.map(save, range(8))
    assert [*tmp_path.iterdir()] == [path]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model"
    fitted().save(path)
    before = path.read_bytes()

    def no_space(descriptor):
        raise OSError(errno.ENOSPC, "no space left")

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
    model._fitted.parameters["device"] = model.device = "cuda:7"
    for way in WAYS:
        again = way(model, tmp_path)
        assert again.module_.inputs.center.device.type == "cpu"
        assert np.isfinite(again.transform(X)).all()


# ------------------------------------------------------------------ rows in files


def occurring(cells, path):
    """The cells, or their float32 values, that are numbers in a saved file."""
    numbers = [array.ravel().astype(float) for array in load_file(path).values()]
    numbers += [
        np.array(re.findall(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?", header_of(path)["tree"]), float)
    ]
    known = np.concatenate(numbers)
    return [x for x in cells.ravel() if x in known or np.float32(x).item() in known]


@for_each()
@pytest.mark.filterwarnings("ignore")
def test_a_file_holds_no_cells_of_training_rows(estimator_class, tmp_path):
    rows = np.random.default_rng(5).normal(size=(60, 4))
    train(estimator_class(random_state=0), rows).save(tmp_path / "model")
    assert occurring(rows, tmp_path / "model") == []


@for_each([c for c in AUTOENCODERS if issubclass(c, ConditionedAutoencoder)])
@pytest.mark.parametrize("n", [2, 40, 300])
@pytest.mark.filterwarnings("ignore")
def test_a_file_holds_no_numbers_of_conditions(estimator_class, n, tmp_path):
    rng = np.random.default_rng(5)
    table = np.column_stack([rng.normal(size=(n, 4)), rng.integers(4, size=n)]).astype(object)
    key = {estimator_class._condition_parameter: [2, 3, 4]}
    model = tiny(estimator_class, **key).fit(table, sample_weight=rng.uniform(0.1, 2, size=n))
    for _ in range(2):
        model.save(tmp_path / "model")
        assert occurring(table[:, :4].astype(float), tmp_path / "model") == []
        model.partial_fit(table[-1:])


# ------------------------------------------------------------------ bad files


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    fitted(warm_start=True).save(path)
    return path


@pytest.fixture
def saved_conditional(tmp_path):
    """A model of two conditions: a category of two levels, and a number."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcde"))
    frame["group"], frame["dose"] = np.where(X[:, 0] > 0, "high", "low"), np.arange(80) / 80
    model = skae.ConditionalVariationalAutoencoder(
        2, condition=["group", "dose"], hidden_layer_sizes=(6,), max_epochs=3, random_state=0
    )
    path = tmp_path / "conditional.safetensors"
    model.fit(frame).save(path)
    return path


def forge(path, change=None, arrays=None, tree=None):
    """Rewrite a saved file as someone who knows the format would; its checksum is right."""
    tensors, header = load_file(path), header_of(path)
    if arrays:
        tensors = arrays(tensors)
    tree = json.loads(header["tree"]) if tree is None else tree
    if change:
        change(tree)
    write_forged(path, header, tree, tensors)


def entry(tree, *names):
    """A container inside a tree of tagged dicts, lists and objects."""
    for name in names:
        tree = opened(tree)[name]
    return opened(tree)


def opened(node):
    """A node's items, whatever its tag."""
    if isinstance(node, list):
        return node
    [(tag, content)] = node.items()
    return opened(content[1]) if tag == "object" else content


def test_forging_works(saved):
    """Else the tests below would prove nothing."""
    forge(saved, lambda tree: entry(tree).update(verbose=1))
    assert skae.load(saved).verbose == 1


def overwrite(content):
    return lambda path: path.write_bytes(content)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(bytes(content))


def state(**values):
    return lambda path: forge(path, lambda tree: entry(tree).update(values))


def inside(*names, **values):
    """Change a container inside the fitted model."""
    return lambda path: forge(path, lambda tree: entry(tree, "_fitted", *names).update(values))


def without(*names):
    """Take an entry of a container inside the fitted model away."""
    *outer, last = names
    return lambda path: forge(path, lambda tree: entry(tree, "_fitted", *outer).pop(last))


def instead(*names, value):
    """Put a value, or an array, in the place of an array inside the fitted model."""

    def change(path):
        arrays = {"forged": value} if isinstance(value, np.ndarray) else {}
        node = {"array": "forged"} if arrays else value
        *outer, last = names
        forge(
            path,
            lambda tree: entry(tree, "_fitted", *outer).__setitem__(last, node),
            lambda tensors: tensors | arrays,
        )

    return change


def changed(*names, function):
    """Apply a function to an array inside the fitted model."""

    def change(path):
        node = json.loads(header_of(path)["tree"])
        name = entry(node, "_fitted", *names[:-1])[names[-1]]["array"]
        forge(path, arrays=lambda tensors: tensors | {name: function(tensors[name])})

    return change


def wild_generator(position):
    """A generator's state whose position lies outside it."""

    def change(tree):
        keys = {"array": "0"}
        content = {"tuple": ["MT19937", keys, position, 0, 0.0]}
        entry(tree).update(random_state={"RandomState": content})

    return change


def later_format(path):
    tensors, header = load_file(path), header_of(path)
    save_file(tensors, path, header | {"skae": "999"})


def renamed(name):
    """Give the object another class."""

    def change(tree):
        tree["object"][0] = name

    return lambda path: forge(path, change)


def column(index, name="dose", levels=None):
    return {"object": ["Column", {"dict": {"index": index, "name": name, "levels": levels}}]}


PARTS = ("schema", "module", "density", "likelihood", "training", "best_epoch", "seen",
         "conditions", "learned", "dtype", "n_components", "parameters")  # fmt: skip
"""What the tree of a fitted model consists of."""

BOUNDS = {"likelihood": "gaussian", "low": 0.0, "high": 1.0}

BAD_FILES = {
    "empty": (overwrite(b""), "damaged"),
    "text": (overwrite(b"codes, codes, codes" * 10), "damaged"),
    "a pickle": (overwrite(pickle.dumps({"a": 1})), "damaged"),
    "huge header": (overwrite(struct.pack("<Q", 2**62) + b"{}"), "damaged"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-100]), "damaged"),
    "cut in the header": (lambda path: path.write_bytes(path.read_bytes()[:50]), "damaged"),
    "bit flipped": (flip_a_bit, "checksum"),
    "another's": (lambda path: save_file({"w": np.ones(3)}, path), "not contain a skae estimator"),
    "a checkpoint": (
        lambda path: files.write(path, "checkpoint", {}),
        "not contain a skae estimator",
    ),
    "later": (later_format, "Install a later version"),
    "no tree": (lambda path: forge(path, tree=[1]), "are invalid"),
    "unknown tag": (lambda path: forge(path, tree={"eval": "1"}), "are invalid"),
    "two tags": (lambda path: forge(path, tree={"a": 1, "b": 2}), "are invalid"),
    "unknown array": (state(n_components={"array": "999"}), "are invalid"),
    "unknown class": (renamed("Popen"), "no class 'Popen'"),
    "abstract class": (renamed("BaseAutoencoder"), "are invalid"),
    "no estimator": (renamed("Column"), "fields of a Column are"),
    "a method": (state(transform="print"), "saved attribute 'transform'"),
    "dunder": (state(__class__="print"), "saved attribute '__class__'"),
    "bad parameter": (state(trim=7.0), "'trim' parameter"),
    "wrong type": (state(hidden_layer_sizes="many"), "'hidden_layer_sizes' parameter"),
    "a fitted attribute": (state(n_features_in_=4), "saved attribute 'n_features_in_'"),
    "other columns": (inside("schema", n_columns=4), "a schema of 4 columns must hold each"),
    "columns without number": (
        inside("schema", n_columns=10**15),
        "a schema of 10+ columns must hold each",
    ),
    "columns as text": (inside("schema", n_columns="five"), "n_columns of a Schema cannot be"),
    "wild generator": (
        lambda path: forge(path, wild_generator(10**8)),
        "are invalid",
    ),
    "wilder generator": (lambda path: forge(path, wild_generator(10**30)), "are invalid"),
    "bad fitted parameter": (inside("parameters", activation="nope"), "'activation' parameter"),
    "no fitted parameters": (inside(parameters={"dict": {}}), "noise does not match"),
    "huge network": (
        inside("parameters", hidden_layer_sizes=[10**5, 10**5, 10**5]),
        "arrays do not match the network",
    ),
    "more layers than arrays": (
        inside("parameters", hidden_layer_sizes={"tuple": [3] * 32_000}),
        "arrays do not match the network",
    ),
    "an array in two places": (
        inside("module", **{"inputs.scale": {"array": "0"}}),
        "are invalid",
    ),
    "a slice of lists": (state(random_state={"slice": [[], None, None]}), "unknown tag 'slice'"),
    "texts that are numbers": (state(random_state={"names": [1]}), "unknown tag 'names'"),
    "containers as text": (state(_sklearn_output_config="pandas"), "containers of outputs cannot"),
    "a container that is none": (
        state(_sklearn_output_config={"dict": {"transform": []}}),
        "containers of outputs cannot",
    ),
    "empty model": (state(_fitted={"dict": {}}), "are invalid"),
    "model as text": (state(_fitted="none"), "are invalid"),
    "odd dtype": (inside(dtype="nn"), "are invalid"),
    "dtype of the wrong kind": (inside(dtype=["float64"]), "are invalid"),
    "a part too many": (inside(note="v1"), "note"),
    **{f"no {name}": (without(name), "are invalid") for name in PARTS},
    "huge code": (inside(n_components=10**15), "are invalid"),
    "huger code": (inside(n_components=10**30), "are invalid"),
    "code as text": (inside(n_components="two"), "n_components of a model cannot be 'two'"),
    "epoch as text": (inside(best_epoch="last"), "best_epoch of a model cannot be 'last'"),
    "negative epoch": (inside(best_epoch=-1), "best_epoch must not be negative"),
    "rows as text": (inside(seen="all"), "seen of a model cannot be 'all'"),
    "no end of rows": (inside("seen", weight=float("inf")), "must be positive and finite"),
    "no row": (inside("seen", weight=0.0), "must be positive and finite"),
    "a sample": (inside("seen", sample=[1.0]), "sample of a Seen cannot be"),
    "schema as text": (inside(schema="five"), "schema of a model cannot be 'five'"),
    "schema of a dict": (inside(schema={"dict": {}}), "schema of a model cannot be {}"),
    "another's schema": (
        inside(schema={"object": ["Support", {"dict": dict(BOUNDS)}]}),
        "schema of a model cannot be",
    ),
    "schema without names": (without("schema", "names"), "fields of a Schema are"),
    "schema with a surplus": (inside("schema", n_rows=5), "fields of a Schema are"),
    "owner of the wrong kind": (inside("schema", owner=5), "owner of a Schema cannot be 5"),
    "one name": (
        inside("schema", names={"names": ["a"]}),
        "a schema must have 5 names",
    ),
    "names that are numbers": (
        inside("schema", names={"names": [1, 2, 3, 4, 5]}),
        "tag 'names', or its content",
    ),
    "modelled as text": (inside("schema", modelled="all"), "modelled of a Schema cannot be"),
    "modelled as fractions": (
        instead("schema", "modelled", value=np.arange(5.0)),
        "modelled of a Schema cannot be",
    ),
    "a column twice": (
        instead("schema", "modelled", value=np.array([0, 1, 2, 3, 3])),
        "a schema of 5 columns must hold each",
    ),
    "columns in another order": (
        instead("schema", "modelled", value=np.arange(5)[::-1].copy()),
        "must be in increasing order",
    ),
    "conditions that are none": (inside("schema", conditions=[5]), "conditions of a Schema"),
    "a condition too many": (
        inside("schema", conditions=[column(5)]),
        "a schema of 5 columns must hold each",
    ),
    "support as text": (
        inside("schema", "blocks", 0, "support", low="none"),
        "low of a Support cannot be 'none'",
    ),
    "shape as text": (
        inside("schema", "shape", feature_shape="ab"),
        "feature_shape of a RowShape cannot be 'ab'",
    ),
    "another shape": (
        inside("schema", "shape", feature_shape={"tuple": [1, 5]}),
        "shape of a row does not match",
    ),
    "conditions of rows without columns": (
        inside(conditions={"dict": {}}),
        "conditions of a model cannot be",
    ),
    "learned as text": (inside(learned="none"), "learned of a model cannot be 'none'"),
    "mean that is not a number": (
        instead("density", "mean", value=np.array([0.0, np.nan])),
        "density does not match",
    ),
    "infinite covariance": (
        instead("density", "covariance", value=np.full((2, 2), np.inf)),
        "density does not match",
    ),
    "covariance without variance": (
        instead("density", "covariance", value=np.zeros((2, 2))),
        "covariance of the codes must be positive definite",
    ),
    "mean in single precision": (
        instead("density", "mean", value=np.zeros(2, dtype=np.float32)),
        "must be in float64",
    ),
    "mean of another code": (instead("density", "mean", value=np.zeros(3)), "moments of the codes"),
    "mean in whole numbers": (
        instead("density", "mean", value=np.zeros(2, dtype=np.int64)),
        "density does not match",
    ),
    "mean as text": (inside("density", mean="none"), "are invalid"),
    "no mean": (without("density", "mean"), "are invalid"),
    "moments too many": (
        instead("density", "skewness", value=np.zeros(2)),
        "density does not match",
    ),
    "noise that is not a number": (
        instead("likelihood", "noise_variance", value=np.full(5, np.nan)),
        "density does not match",
    ),
    "noise of other columns": (
        instead("likelihood", "noise_variance", value=np.ones(7)),
        "are invalid",
    ),
    "no noise": (without("likelihood", "noise_variance"), "are invalid"),
    "weight as text": (inside("module", **{"inputs.scale": "one"}), "are invalid"),
    "a weight too many": (
        instead("module", "inputs.more", value=np.zeros(3)),
        "arrays do not match the network",
    ),
    "no scale": (without("module", "inputs.scale"), "arrays do not match the network"),
    "training as text": (inside(training="long"), "the training state must consist of"),
    "training without history": (
        without("training", "history"),
        "the training state must consist of",
    ),
    "history as text": (inside("training", history="long"), "must be lists"),
    "history of texts": (inside("training", history=["long"]), "must be lists"),
    "loss as text": (
        inside("training", "history", 0, train_loss="small"),
        "must be numbers",
    ),
    "generator as text": (inside("training", generator="seed"), "are invalid"),
    "generator in fractions": (
        instead("training", "generator", value=np.zeros(5056)),
        "must be a vector of bytes",
    ),
    "broken generator": (
        instead("training", "generator", value=np.full(5056, 255, np.uint8)),
        "are invalid",
    ),
    "optimizer as text": (inside("training", optimizer="Adam"), "must be lists"),
    "optimizer of another network": (
        inside("training", optimizer=[{"dict": {}}]),
        "are invalid",
    ),
    "momentum of another shape": (
        instead("training", "optimizer", 0, "exp_avg", value=np.zeros(3)),
        "the state of the optimizer",
    ),
    "other shapes": (
        lambda path: forge(path, arrays=lambda arrays: {k: v.ravel() for k, v in arrays.items()}),
        "are invalid",
    ),
}


@pytest.mark.parametrize(("damage", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_refused(saved, damage, message):
    damage(saved)
    with pytest.raises(ValueError, match=message):
        skae.load(saved)


GROUP, DOSE = ("schema", "conditions", 0), ("schema", "conditions", 1)

BAD_CONDITIONS = {
    "no conditions of rows": (inside(conditions=None), "do not match the columns of conditions"),
    "no columns": (inside("schema", conditions=[]), "a schema of 7 columns must hold each"),
    "one column": (
        inside("schema", conditions=[column(5)]),
        "a schema of 7 columns must hold each",
    ),
    "index as text": (inside(*GROUP, index="5"), "index of a Column cannot be '5'"),
    "index beyond the table": (inside(*GROUP, index=99), "a schema of 7 columns must hold each"),
    "name as number": (inside(*GROUP, name=5), "name of a Column cannot be 5"),
    "levels as text": (inside(*GROUP, levels="high"), "levels of a Column cannot be 'high'"),
    "levels that are no texts": (
        inside(*GROUP, levels={"names": [["high"], {"eval": "1"}]}),
        "tag 'names', or its content",
    ),
    "no levels": (inside(*GROUP, levels={"names": []}), "must be sorted distinct values"),
    "levels of a table": (
        instead(*GROUP, "levels", value=np.zeros((2, 2))),
        "must be sorted distinct values",
    ),
    "a level too many": (
        inside(*GROUP, levels={"names": ["high", "low", "no"]}),
        "arrays do not match the network",
    ),
    "a number with levels": (
        instead(*DOSE, "levels", value=np.arange(2.0)),
        "contradicts levels",
    ),
    "column without levels": (without(*GROUP, "levels"), "fields of a Column are"),
    "column with a surplus": (inside(*GROUP, width=2), "fields of a Column are"),
    "column as dict": (inside("schema", conditions=[{"dict": {}}]), "conditions of a Schema"),
    **{
        f"{name} as text": (
            inside("conditions", **{name: "none"}),
            f"{name} of a SeenConditions cannot be",
        )
        for name in ("levels", "group", "weight", "count", "mean", "root")
    },
    "levels of other columns": (
        instead("conditions", "levels", value=np.zeros((20, 2))),
        "of conditions must have shape",
    ),
    "weights of other rows": (
        instead("conditions", "weight", value=np.ones(3)),
        "of conditions must have shape",
    ),
    "means that are not numbers": (
        changed("conditions", "mean", function=lambda a: a * np.nan),
        "must be finite",
    ),
    "unknown levels": (
        changed("conditions", "levels", function=lambda a: a + 7),
        "must hold levels of their columns",
    ),
    "unknown groups": (
        changed("conditions", "group", function=lambda a: a + 70),
        "must belong to groups",
    ),
    "negative groups": (
        changed("conditions", "group", function=lambda a: a - 1),
        "must belong to groups",
    ),
    "negative weights": (
        changed("conditions", "weight", function=lambda a: -a),
        "finite and not negative",
    ),
    "no weights": (
        changed("conditions", "weight", function=lambda a: 0 * a),
        "finite and not negative",
    ),
    "weights of a table": (
        changed("conditions", "weight", function=lambda a: a[:, None]),
        "weight of conditions must have shape",
    ),
}


@pytest.mark.parametrize(("damage", "message"), BAD_CONDITIONS.values(), ids=BAD_CONDITIONS)
def test_bad_conditions_are_refused(saved_conditional, damage, message):
    damage(saved_conditional)
    with pytest.raises(ValueError, match=message):
        skae.load(saved_conditional)


@pytest.mark.parametrize("classes", ["abc", [0, 1, 2], {"names": ["a"]}, None])
def test_classes_that_are_not_the_models_are_refused(tmp_path, classes):
    path = tmp_path / "model.safetensors"
    model = skae.SemiSupervisedVariationalAutoencoder(
        2, hidden_layer_sizes=(6,), max_epochs=1, random_state=0
    )
    model.fit(X, np.arange(80) % 3).save(path)
    inside("learned", classes_=classes)(path)
    with pytest.raises(ValueError, match="not the classes of this model"):
        skae.load(path)


def test_deep_nesting_is_refused(saved):
    depth = 10 * sys.getrecursionlimit()
    tensors, header = load_file(saved), header_of(saved)
    header["tree"] = "[" * depth + "]" * depth
    header["sha256"] = files._digest(header["tree"], tensors)
    save_file(tensors, saved, header)
    with pytest.raises(ValueError, match="are invalid"):
        skae.load(saved)


def test_absent_files_and_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
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


def assert_same_expectation(scores, expected):
    """Compare estimates whose random numbers may differ between versions."""
    difference = scores - expected
    assert difference.std() < 0.2
    assert abs(difference.mean()) < 4 * difference.std() / len(difference) ** 0.5


def test_a_conditional_model_of_format_1_loads_for_ever(monkeypatch):
    """Its conditions, a category and a number, were stored one-hot encoded."""
    pandas = pytest.importorskip("pandas")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = skae.load(DATA / "format-1-conditional.safetensors")
    expected = np.load(DATA / "format-1-conditional.npz")
    rows = pandas.DataFrame(expected["cells"], columns=list("abcd"))
    rows.insert(1, "group", expected["group"].astype(object))
    rows.insert(4, "dose", expected["dose"])
    assert list(model.feature_names_in_) == list(rows.columns)
    close = {"rtol": 1e-6, "atol": 1e-6}
    np.testing.assert_allclose(model.transform(rows), expected["codes"], **close)
    assert_same_expectation(model.score_samples(rows), expected["scores"])
    # The conditions of its rows were stored, in place of a summary.
    _, content = files.read(DATA / "format-1-conditional.safetensors", "estimator")
    stored = content["state"]["_columns_"]["state"]
    *groups, doses = stored["conditions"].T
    share = stored["weight"] / stored["weight"].sum()
    drawn = pandas.DataFrame(model.sample(5000, random_state=1), columns=rows.columns)
    shares = drawn["group"].value_counts(normalize=True).sort_index()
    np.testing.assert_allclose(shares, [share @ part for part in groups], atol=0.03)
    np.testing.assert_allclose(drawn["dose"].mean(), share @ doses, atol=0.03)
    condition = {"group": "west", "dose": 0.5}
    # The version that wrote the file used the seed itself.
    monkeypatch.setattr(inference, "derive_seed", lambda seed, purpose: seed)
    drawn = pandas.DataFrame(
        model.sample(5, condition=condition, random_state=2), columns=rows.columns
    )
    cells = drawn[list("abcd")].astype(float)
    np.testing.assert_allclose(cells, expected["sample_under_condition"], **close)


def test_a_conditional_model_of_format_3_loads_for_ever(tmp_path, monkeypatch):
    """Its file contains the conditions of its rows; a file of this format does not."""
    pandas = pytest.importorskip("pandas")
    path = DATA / "format-3-conditional.safetensors"
    model, expected = skae.load(path), np.load(DATA / "format-3-conditional.npz")
    rows = pandas.DataFrame(expected["cells"], columns=list("abc"))
    rows = rows.assign(group=expected["group"].astype(object), dose=expected["dose"])
    close = {"rtol": 1e-6, "atol": 1e-6}
    np.testing.assert_allclose(model.transform(rows), expected["codes"], **close)
    assert_same_expectation(model.score_samples(rows), expected["scores"])
    # The version that wrote the file used the seed itself.
    monkeypatch.setattr(inference, "derive_seed", lambda seed, purpose: seed)
    drawn = model.sample(5, condition={"group": "east", "dose": 0.5}, random_state=2)
    np.testing.assert_allclose(drawn[:, :3].astype(float), expected["condition"], **close)
    arrays, tree = load_file(path), json.loads(header_of(path)["tree"])
    old = entry(tree, "_fitted", "conditions")
    cells, weight = (arrays[old[name]["array"]] for name in ("cells", "weight"))
    assert np.isin(expected["dose"], cells).all()
    drawn = pandas.DataFrame(model.sample(5000, random_state=1), columns=rows.columns)
    shares, doses = np.average(cells, axis=0, weights=weight)
    assert abs((drawn["group"] == "north").mean() - shares) < 0.03
    assert abs(drawn["dose"].mean() - doses) < 0.1
    model.save(tmp_path / "again")
    assert occurring(rows["dose"].to_numpy(), tmp_path / "again") == []


@pytest.mark.parametrize("change", ["cells", "weight", "levels"])
def test_bad_conditions_of_format_3_are_refused(tmp_path, change):
    path = tmp_path / "model.safetensors"
    shutil.copyfile(DATA / "format-3-conditional.safetensors", path)
    if change == "levels":
        changed("conditions", "cells", function=lambda a: a + 7)(path)
    else:
        changed("conditions", change, function=lambda a: a[1:])(path)
    with pytest.raises(ValueError, match=r"must (fit the schema|hold levels)"):
        skae.load(path)


def test_a_detector_of_format_2_loads_for_ever(tmp_path):
    """Two of its parameters had other names: `score`, and `commitment` of its autoencoder."""
    detector = skae.load(DATA / "format-2-detector.safetensors")
    expected = np.load(DATA / "format-2-detector.npz")
    assert detector.criterion == "robust"
    assert detector.autoencoder.commitment_cost == 0.5
    assert detector.autoencoder_._fitted.parameters["commitment_cost"] == 0.5
    close = {"rtol": 1e-6, "atol": 1e-6}
    np.testing.assert_allclose(detector.score_samples(expected["X"]), expected["scores"], **close)
    detector.save(tmp_path / "again")
    again = skae.load(tmp_path / "again").score_samples(expected["X"])
    np.testing.assert_array_equal(again, detector.score_samples(expected["X"]))


def test_tasks_of_format_3_load_for_ever(tmp_path):
    """Each fitted number of theirs was an attribute, and now is a field of one attribute."""
    pandas = pytest.importorskip("pandas")
    expected = np.load(DATA / "format-3-tasks.npz")
    rows = pandas.DataFrame(expected["X"], columns=list("abcd"))
    names = ("detector", "classifier", "multilabel", "regressor")
    tasks = {name: skae.load(DATA / f"format-3-{name}.safetensors") for name in names}
    assert tasks["classifier"].classes_.tolist() == ["low", "mid", "top"]
    assert tasks["multilabel"].label_names_ == ["y0", "y1", "third"]
    assert tasks["detector"].offset_ == pytest.approx(expected["offset"])
    assert tasks["detector"].n_calibration_rows_ == 24
    for task in tasks.values():
        assert list(task.feature_names_in_) == list("abcd")
    for _ in range(2):
        answers = {
            "scores": tasks["detector"].score_samples(rows),
            "p": tasks["detector"].p_values(rows),
            "explanation": tasks["detector"].explain(rows),
            "classes": tasks["classifier"].predict_proba(rows),
            "labels": tasks["multilabel"].predict_proba(rows),
            "targets": tasks["regressor"].predict(rows),
        }
        for name, answer in answers.items():
            np.testing.assert_allclose(answer, expected[name], rtol=1e-6, atol=1e-6)
        for name, task in tasks.items():
            task.save(tmp_path / name)
        tasks = {name: skae.load(tmp_path / name) for name in names}


def test_models_of_format_4_load_for_ever(tmp_path):
    """Their schemas know numbers only, and their results are arrays."""
    pandas = pytest.importorskip("pandas")
    expected = np.load(DATA / "format-4.npz")
    rows = pandas.DataFrame(expected["X"], columns=list("wxyz"))
    with_kind = rows.assign(kind=expected["kind"].astype(object))
    close = {"rtol": 1e-6, "atol": 1e-6}
    for name, table, prefix in (
        ("autoencoder", rows, ""),
        ("conditional", with_kind, "conditional_"),
    ):
        model = skae.load(DATA / f"format-4-{name}.safetensors")
        np.testing.assert_allclose(model.transform(table), expected[f"{prefix}codes"], **close)
        nats = model.score_samples(table)
        np.testing.assert_allclose(nats, expected[f"{prefix}nats"], **close)
        cells = model.reconstruct(table)[:, :4].astype(float)
        np.testing.assert_allclose(cells, expected[f"{prefix}rows"], **close)
        model.save(tmp_path / name)
        again = skae.load(tmp_path / name)
        np.testing.assert_array_equal(again.score_samples(table), nats)
        with pytest.raises(ValueError, match="contains NaN"):
            model.transform(table.assign(w=np.nan))


def test_a_model_of_format_1_is_saved_in_the_present_format(tmp_path):
    model = skae.load(DATA / "format-1-conditional.safetensors")
    model.save(tmp_path / "again")
    assert header_of(tmp_path / "again")["skae"] == str(files.FORMAT)
    again = skae.load(tmp_path / "again")
    np.testing.assert_array_equal(again.sample(9, random_state=0), model.sample(9, random_state=0))


BAD_OLD_FILES = {
    "unknown class": lambda tree: tree["dict"].update({"class": "Popen"}),
    "no state": lambda tree: tree["dict"].pop("state"),
    "no arrays": lambda tree: entry(tree, "state").update(_arrays={"dict": {}}),
    "arrays as text": lambda tree: entry(tree, "state").update(_arrays="none"),
    "no parameters": lambda tree: entry(tree, "state").pop("_fit_params_"),
    "columns as text": lambda tree: entry(tree, "state").update(n_features_in_="six"),
    "other columns": lambda tree: entry(tree, "state").update(n_features_in_=5),
    "conditions as text": lambda tree: entry(tree, "state").update(_columns_="group"),
    "index as text": lambda tree: entry(tree, "state", "_columns_", "state").update(given="ab"),
    "names as numbers": lambda tree: entry(tree, "state", "_columns_", "state").update(
        names=[1, 2]
    ),
    "no categories": lambda tree: entry(tree, "state", "_columns_", "state").update(
        categories=[None, None]
    ),
    "a tree of format 2": lambda tree: tree.update(dict=column(0)),
}


@pytest.mark.parametrize("change", BAD_OLD_FILES.values(), ids=BAD_OLD_FILES)
def test_bad_files_of_format_1_are_refused(tmp_path, change):
    path = tmp_path / "model.safetensors"
    shutil.copyfile(DATA / "format-1-conditional.safetensors", path)
    forge(path, change)
    with pytest.raises(ValueError, match="are invalid"):
        skae.load(path)


def table(rows):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(rows, columns=list("abcd"))


@pytest.mark.parametrize("name", ["fit", "partial_fit"])
def test_models_of_earlier_versions_keep_their_widths(name, tmp_path, monkeypatch):
    """When "auto" meant the same widths for narrow tables as for others."""
    model = Autoencoder(2, max_epochs=1, warm_start=True, random_state=0)
    with monkeypatch.context() as earlier:
        earlier.setattr(Autoencoder, "_narrow_widths", (256, 128))
        model.fit(X)
        codes = model.transform(X)
        model.save(tmp_path / "model.safetensors")
    loaded = skae.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.transform(X), codes)
    getattr(loaded, name)(X)
    assert len(loaded.module_.encoder.residual.layers[0].weight) == 256
    loaded.set_params(n_components=3).fit(X)
    assert len(loaded.module_.encoder.residual.layers[0].weight) == 256
    fresh = loaded.set_params(warm_start=False).fit(X)
    assert len(fresh.module_.encoder.residual.layers[0].weight) == 128
