"""Saved files that are edited at random, with a right checksum, and the use of what they give."""

import copy
import json
import pickle
import struct

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.base import clone
from sklearn.utils import get_tags

from skae import files


def header_of(path):
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size])["__metadata__"]


def write_forged(path, header, tree, arrays):
    """Write a file as someone who knows the format would; its checksum is right."""
    text = json.dumps(tree)
    header = header | {"tree": text, "sha256": files._digest(text, arrays)}
    save_file(arrays, path, header)


# ------------------------------------------------------------------------------------------ edits

SCALARS = (
    None, True, False, 0, 1, -1, 2, 7, 0.5, -0.5, 1e-300, 1e300, float("nan"), float("inf"),
    10**6, 10**9, 10**15, 10**30, -(10**30), "", "text", "auto", "a", "float32", "diagonal",
)  # fmt: skip

CONTAINERS = (
    [], [0], ["a"], [[]], {"dict": {}}, {"dict": {"a": 1}}, {"tuple": []}, {"tuple": [1, "a"]},
    {"tuple": [3] * 50}, {"names": []}, {"names": ["a"]}, {"names": [["a"]]}, {"names": "a"},
    {"names": [1, None]}, {"slice": [None, 2, None]}, {"slice": [[], {}, "a"]}, {"array": "0"},
    {"array": "9999"}, {"array": 0}, {"object": ["Column", {"dict": {}}]},
    {"object": ["RowShape", {"dict": {"feature_shape": [1], "may_end_early": False}}]},
    {"object": ["Autoencoder", {"dict": {}}]}, {"object": ["Neighbors", {"dict": {}}]}, {},
)  # fmt: skip


def places(tree):
    """The container and the key of each entry of a tree."""
    if isinstance(tree, dict | list):
        for key, item in list(tree.items()) if isinstance(tree, dict) else enumerate(tree):
            yield tree, key
            yield from places(item)


def texts(tree):
    return [*{c[k] for c, k in places(tree) if isinstance(c[k], str)}, *map(str, range(3))]


def pick(rng, sequence):
    return sequence[int(rng.integers(len(sequence)))]


def other_number(rng, value):
    return pick(
        rng,
        [
            -value,
            value + 1,
            value - 1,
            2 * value,
            value * 10**9,
            value + 0.5,
            float(value),
            str(value),
        ],
    )


def edit_tree(rng, tree):
    """Change one random entry of a tree."""
    all_places = [*places(tree)]
    if not all_places:  # after an edit that removed everything
        return
    container, key = pick(rng, all_places)
    value = container[key]
    kind = rng.integers(8)
    if kind == 0:
        container[key] = pick(rng, SCALARS)
    elif kind == 1:
        container[key] = copy.deepcopy(pick(rng, CONTAINERS))
    elif kind == 2:
        del container[key]
    elif kind == 3:
        other, name = pick(rng, [*places(tree)])
        container[key] = copy.deepcopy(other[name])
    elif kind == 4 and isinstance(container, dict):
        container[pick(rng, texts(tree))] = container.pop(key)
    elif kind == 5 and isinstance(value, str):
        container[key] = pick(rng, texts(tree))
    elif kind == 6 and isinstance(value, list) and value:
        container[key] = pick(rng, [value[:-1], value + value[-1:], value[::-1], value * 3])
    elif isinstance(value, int | float) and not isinstance(value, bool):
        container[key] = other_number(rng, value)
    else:
        container[key] = pick(rng, SCALARS)


ARRAY_EDITS = (
    lambda a: a.ravel(),
    lambda a: a.T,
    lambda a: a[:-1] if a.ndim else a[None],
    lambda a: np.concatenate([a, a]) if a.ndim else a,
    lambda a: a[None],
    lambda a: a[:0] if a.ndim else a,
    lambda a: a.astype(np.float32),
    lambda a: a.astype(np.float64),
    lambda a: a.astype(np.int64),
    lambda a: a.astype(bool),
    lambda a: a.astype(np.uint8),
    lambda a: np.full_like(a, np.nan) if a.dtype.kind == "f" else np.full_like(a, 1),
    lambda a: np.full(a.shape, np.inf),
    lambda a: np.zeros_like(a),
    lambda a: -a.astype(float),
    lambda a: a * 1e300 if a.dtype == np.float64 else a * 0,
    lambda a: a + 100,
    lambda a: a[..., ::-1] if a.ndim else a,
)


def edited_array(arrays, name, edit):
    """Arrays of which one is changed."""
    with np.errstate(all="ignore"):
        array = edit(arrays[name])
    return arrays | {name: np.ascontiguousarray(array).reshape(array.shape)}


def edited_files(path, n, seed):
    """Overwrite a saved file `n` times by random edits of it, and yield their number."""
    header, arrays = header_of(path), load_file(path)
    rng = np.random.default_rng(seed)
    for i in range(n):
        tree, changed = json.loads(header["tree"]), arrays
        for _ in range(rng.choice([1, 2], p=[0.8, 0.2])):
            if rng.random() < 0.25:
                changed = edited_array(changed, pick(rng, [*arrays]), pick(rng, ARRAY_EDITS))
            else:
                edit_tree(rng, tree)
        write_forged(path, header, tree, changed)
        yield i


# -------------------------------------------------------------------------------------------- use


NOT_USED = {"audit", "fit", "fit_transform", "fit_predict", "set_params", "set_callbacks"}
"""Methods that depend on no more of a file than its parameters, as those of any user, or that take
long: `audit` trains forests on what `transform` returns."""


def calls(estimator, rows, tmp_path):
    """The public methods of an estimator, with arguments that are right for the saved one."""
    y = np.arange(len(rows)) % 2 if get_tags(estimator).target_tags.required else None
    row_methods = (
        "transform", "reconstruct", "reconstruction_error", "score_samples", "decision_function",
        "predict", "predict_proba", "predict_log_proba", "elbo", "log_likelihood", "posterior",
        "explain", "p_values", "quantize", "encoder_jacobian", "decoder_jacobian",
        "integrated_gradients", "preprocess", "impute",
    )  # fmt: skip
    calls = {name: lambda method: method(rows) for name in row_methods}
    calls |= {
        "score": lambda method: method(rows, y),
        "partial_fit": lambda method: method(rows, y),
        "get_feature_names_out": lambda method: method(),
        "get_params": lambda method: method(),
        "get_metadata_routing": lambda method: method(),
        "inverse_transform": lambda method: method(estimator.transform(rows)),
        "sample": lambda method: method(3, random_state=0),
        "get_covariance": lambda method: method(),
        "get_precision": lambda method: method(),
        "posterior_predictive": lambda method: method(rows, 3, random_state=0),
        "interpolate": lambda method: method(rows[:1], rows[1:2], 3),
        "traverse": lambda method: method(rows[:1], 0, [0.0, 1.0]),
        "dequantize": lambda method: method(estimator.quantize(rows)),
        "translate": lambda method: method(rows, None),
        "add_label": lambda method: method(rows, np.arange(len(rows)) % 2),
        "save": lambda method: method(tmp_path / "again"),
        "set_output": lambda method: method(transform="pandas").transform(rows),
    }
    names = {n for n in dir(type(estimator)) if not n.startswith("_")} - NOT_USED
    methods = {n for n in names if callable(getattr(type(estimator), n))}
    methods = {n for n in methods if not (n.startswith("set_") and n.endswith("_request"))}
    # These methods come last, since they change the estimator.
    last = ("partial_fit", "add_label", "set_output")
    for name in sorted(methods, key=lambda name: (name in last, name)):
        yield name, lambda name=name: calls[name](getattr(estimator, name))


UNDEFINED = {"feature_names_in_", "label_names_", "components_", "mean_"}
"""Attributes that a fitted estimator need not have."""


def attributes(estimator):
    """The public attributes of an estimator other than its methods, and `UNDEFINED`."""
    names = {n for n in (*dir(type(estimator)), *vars(estimator)) if not n.startswith("_")}
    methods = {n for n in names if callable(getattr(type(estimator), n, None))}
    return sorted(names - methods - UNDEFINED)


def use(estimator, rows, tmp_path):
    """Use all that is public of an estimator, and return its errors other than ValueError."""
    wrong = []

    def attempt(name, call):
        try:
            call()
        except ValueError:
            pass
        except Exception as error:
            wrong.append((name, repr(error)))

    attempt("repr", lambda: repr(estimator))
    attempt("clone", lambda: clone(estimator))
    attempt("pickle", lambda: pickle.loads(pickle.dumps(estimator)))
    for name in attributes(estimator):
        attempt(name, lambda name=name: getattr(estimator, name))
    for name in UNDEFINED:
        attempt(name, lambda name=name: hasattr(estimator, name))
    for name, call in calls(estimator, rows, tmp_path):
        attempt(name, call)
    return wrong
