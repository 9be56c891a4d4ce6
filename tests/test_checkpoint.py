"""Training that was interrupted goes on to the same bits."""

import os
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback
from test_determinism import in_forked_child

from skae import Autoencoder, Checkpoint, files

RNG = np.random.default_rng(0)
X = RNG.normal(size=(150, 2)) @ RNG.normal(size=(2, 5)) + 0.1 * RNG.normal(size=(150, 5))

COMMON = {"hidden_layer_sizes": (6,), "batch_size": 32, "dropout": 0.2, "max_epochs": 6}


class KillAt(Callback):
    """Kills its own process after some epochs: no handler runs, nothing is flushed."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == self.epoch + 1:
            os.kill(os.getpid(), signal.SIGKILL)


class FailAt(KillAt):
    """Raises instead."""

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == self.epoch + 1:
            raise RuntimeError("the plug was pulled")


def corrupt(x, generator):
    return x + torch.randn(x.shape, generator=generator, dtype=x.dtype)


CASES = {
    "best epoch kept": {"early_stopping": True},
    "nothing held out": {"early_stopping": False},
    "patience": {"early_stopping": True, "n_iter_no_change": 2, "tol": 10.0},
    "corruption": {"corruption": corrupt},
    "float32": {"precision": "float32"},
    "layer by layer": {"layerwise_epochs": 1},
}


def make(callbacks=None, **parameters):
    return Autoencoder(2, random_state=0, callbacks=callbacks, **(COMMON | parameters))


def answers(model):
    """What a model says and what it remembers of its training."""
    state = model._fitted.training
    return np.concatenate(
        [
            model.transform(X).ravel(),
            model.score_samples(X),
            model.loss_curve_,
            model.validation_curve_,
            [model.best_epoch_, model.n_iter_],
            state["generator"],
            *(value.ravel() for saved in state["optimizer"] for value in saved.values()),
        ]
    )


def run_and_be_killed(folder, epoch, parameters):
    """Fit in another process until it is killed."""
    here = os.path.dirname(__file__)
    code = (
        f"import sys, pickle; sys.path.insert(0, {here!r})\n"
        "from test_checkpoint import *\n"
        "folder, epoch, parameters = pickle.load(sys.stdin.buffer)\n"
        "make([Checkpoint(folder), KillAt(epoch)], **parameters).fit(X)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps((folder, epoch, parameters)),
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_killed_fit_goes_on_to_the_same_bits(tmp_path):
    unbroken = answers(make(early_stopping=True).fit(X))
    run_and_be_killed(tmp_path, 2, {"early_stopping": True})
    assert len(list(tmp_path.iterdir())) == 1
    # Another process goes on, and so will a third; a fork has no need to import all anew.
    again = make([Checkpoint(tmp_path), KillAt(4)], early_stopping=True)
    assert in_forked_child(lambda: again.fit(X), 60) == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    resumed = make([Checkpoint(tmp_path), EpochsRun()], early_stopping=True).fit(X)
    np.testing.assert_array_equal(answers(resumed), unbroken)
    assert resumed.callbacks[1].epochs == 2
    assert list(tmp_path.iterdir()) == []


class EpochsRun(Callback):
    """Counts epochs that were really run."""

    epochs = 0

    def on_epoch_end(self, net, **kwargs):
        self.epochs += 1


@pytest.mark.parametrize("epoch", [0, 1, 3, 5])
@pytest.mark.parametrize("parameters", CASES.values(), ids=CASES)
def test_an_interrupted_fit_goes_on_to_the_same_bits(tmp_path, parameters, epoch):
    unbroken = make(**parameters).fit(X)
    counter = EpochsRun()
    interrupted = make([Checkpoint(tmp_path), FailAt(epoch)], **parameters)
    if unbroken.n_iter_ > epoch:
        with pytest.raises(RuntimeError, match="plug"):
            interrupted.fit(X)
    resumed = make([Checkpoint(tmp_path), counter], **parameters).fit(X)
    np.testing.assert_array_equal(answers(resumed), answers(unbroken))
    if unbroken.n_iter_ > epoch:
        assert counter.epochs == unbroken.n_iter_ - epoch
    assert list(tmp_path.iterdir()) == []


def test_a_warm_start_goes_on_to_the_same_bits(tmp_path):
    def first():
        return make(warm_start=True).fit(X)

    unbroken = first().fit(X[::-1])
    with pytest.raises(RuntimeError, match="plug"):
        first().set_params(callbacks=[Checkpoint(tmp_path), FailAt(8)]).fit(X[::-1])
    resumed = first().set_params(callbacks=[Checkpoint(tmp_path)]).fit(X[::-1])
    np.testing.assert_array_equal(answers(resumed), answers(unbroken))


def test_checkpoints_change_no_bit(tmp_path):
    np.testing.assert_array_equal(
        answers(make([Checkpoint(tmp_path)]).fit(X)), answers(make().fit(X))
    )


@pytest.mark.parametrize(
    "other",
    [
        {"learning_rate": 1e-3},
        {"random_state": 1},
        {"activation": "tanh"},
        {"max_epochs": 7},
        {"trim": 0.1},
        {"corruption": corrupt},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_fit_does_not_go_on_from_it(tmp_path, other):
    """Each fit has its own file, which another's parameters do not find."""
    with pytest.raises(RuntimeError, match="plug"):
        make([Checkpoint(tmp_path), FailAt(3)]).fit(X)
    counter = EpochsRun()
    model = make([Checkpoint(tmp_path), counter]).set_params(**other).fit(X)
    assert counter.epochs == model.max_epochs
    assert len(list(tmp_path.iterdir())) == 1


def test_other_rows_or_weights_do_not_go_on_from_it(tmp_path):
    with pytest.raises(RuntimeError, match="plug"):
        make([Checkpoint(tmp_path), FailAt(3)]).fit(X)
    moved = X.copy()
    moved[7, 3] += 1e-9
    weights = np.ones(len(X))
    weights[7] = 1.5
    for rows, weight in ((moved, None), (X, weights)):
        counter = EpochsRun()
        make([Checkpoint(tmp_path), counter]).fit(rows, sample_weight=weight)
        assert counter.epochs == COMMON["max_epochs"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_the_fits_of_a_search_share_a_folder(tmp_path):
    """In processes that joblib forks: new ones take seconds to import what the fits need."""
    grid = {"n_components": [1, 2]}
    plain = GridSearchCV(make(max_epochs=2), grid, cv=2).fit(X)
    model = make([Checkpoint(tmp_path)], max_epochs=2)
    with parallel_config(backend="multiprocessing"):
        search = GridSearchCV(model, grid, cv=2, n_jobs=2).fit(X)
    np.testing.assert_array_equal(
        search.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"]
    )
    assert list(tmp_path.iterdir()) == []


def test_equal_fits_at_once_share_a_file(tmp_path):
    expected = answers(make().fit(X))
    models = [make([Checkpoint(tmp_path)]) for _ in range(6)]
    with ThreadPoolExecutor(3) as pool:
        for model in pool.map(lambda model: model.fit(X), models):
            np.testing.assert_array_equal(answers(model), expected)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_writing_keeps_the_checkpoint(tmp_path, monkeypatch):
    write, calls = files.write, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make([Checkpoint(tmp_path)]).fit(X)
    counter = EpochsRun()
    resumed = make([Checkpoint(tmp_path), counter]).fit(X)
    assert counter.epochs == COMMON["max_epochs"] - 3
    np.testing.assert_array_equal(answers(resumed), answers(make().fit(X)))


class Mask:
    """A corruption with a parameter."""

    def __init__(self, share):
        self.share = share

    def __call__(self, x, generator):
        return x * (torch.rand(x.shape, generator=generator, dtype=x.dtype) >= self.share)


def test_corruptions_are_told_apart_by_content(tmp_path):
    with pytest.raises(RuntimeError, match="plug"):
        make([Checkpoint(tmp_path), FailAt(3)], corruption=Mask(0.3)).fit(X)
    for share, epochs in ((0.5, 6), (0.3, 3)):
        counter = EpochsRun()
        make([Checkpoint(tmp_path), counter], corruption=Mask(share)).fit(X)
        assert counter.epochs == epochs
    with pytest.raises(ValueError, match=r"corruption.*picklable"):
        make([Checkpoint(tmp_path)], corruption=lambda x, generator: x).fit(X)


def test_a_damaged_checkpoint_says_so(tmp_path):
    with pytest.raises(RuntimeError, match="plug"):
        make([Checkpoint(tmp_path), FailAt(3)]).fit(X)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="damaged"):
        make([Checkpoint(tmp_path)]).fit(X)


def test_a_seed_is_needed(tmp_path):
    with pytest.raises(ValueError, match="random_state"):
        make([Checkpoint(tmp_path)]).set_params(random_state=None).fit(X)
