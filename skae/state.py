"""The fitted state of an autoencoder, and saving and loading estimators."""

import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError

from skae import files
from skae._compat.sklearn import validate_parameters, without_callback_contexts
from skae.density.base import Density
from skae.files import CLASSES, Stored, matches_type
from skae.nn.likelihoods import LIKELIHOODS
from skae.nn.network import Network
from skae.parameters import short_repr
from skae.table.columns import Column, Support
from skae.table.components import Components
from skae.table.conditions import DistinctConditions, SeenConditions
from skae.table.schema import Schema
from skae.table.seen import Seen
from skae.table.sequences import RowShape
from skae.training.loop import to_arrays

KIND = "estimator"
"""Kind of the files that `save` writes."""

RENAMED_PARAMETERS: dict[str, str] = {"commitment": "commitment_cost", "score": "criterion"}
"""Old names of parameters in files of formats 1 and 2, and their current names."""

ATTRIBUTE = re.compile(r"_?[a-z][a-z0-9_]*_|_fitted|_n_features_out|_sklearn_output_config")
"""Pattern of the names, other than those of parameters, that a saved state may contain."""


class NetworkMismatchError(ValueError):
    """Error of a resumed fit whose parameters describe another network than the fitted one."""


class TableInfo(NamedTuple):
    """Information about a table from which a variant makes its latent.

    Attributes
    ----------
    schema : Schema
        Describes the columns of the table.
    learned : dict
        What was learned from targets, such as their classes. It is empty without targets.
    """

    schema: Schema
    learned: dict[str, Any]


@dataclass(frozen=True)
class Fitted:
    """Fitted model of an autoencoder. It never changes, because every fit makes a new one.

    Attributes
    ----------
    parameters : dict
        Parameters of the estimator at the time of the fit, without `callbacks`, `corruption`,
        `random_state`, `verbose` and all others whose values are callable.
    schema : Schema
        How tables are read and written.
    network : Network
        The trained network.
    density : Density
        The distribution of codes and rows.
    training : dict
        History, state of the random generator and state of the optimizer, as `Net.arrays` returns
        them. The state of the optimizer is empty unless training can resume from it.
    best_epoch : int
        Epoch of the latest fit whose weights were kept, counted from 1; 0 is the initial network.
    seen : Seen
        What the model has seen of its rows, from which `partial_fit` continues.
    conditions : SeenConditions or None
        Summary of the conditions of the rows of the fit, including validation rows, and of the fits
        from which it resumed. None if there are no columns of conditions.
    learned : dict
        What was learned from targets, such as their classes. It is empty without targets.
    components : Components
        Units, variances and shares of the components of the codes.
    start_epoch : int
        Number of epochs before the latest fit.
    """

    parameters: dict[str, Any]
    schema: Schema
    network: Network
    density: Density
    training: dict[str, Any]
    best_epoch: int
    seen: Seen
    conditions: SeenConditions | None
    learned: dict[str, Any]
    components: Components
    start_epoch: int = 0

    @property
    def history(self) -> list[dict[str, Any]]:
        """Numbers recorded at each epoch."""
        return self.training["history"]

    @property
    def n_epochs(self) -> int:
        """Number of epochs of all fits, of which the history may contain the latest only."""
        return self.history[-1]["epoch"] if self.history else 0

    def curve(self, name: str) -> list[float]:
        """Return the values of a number in the history, one for each epoch that recorded it."""
        return [epoch[name] for epoch in self.history if name in epoch]

    @property
    def n_samples(self) -> float:
        """Sum of the weights of the rows seen, as an int if it is a whole number."""
        weight = self.seen.weight
        return int(weight) if weight.is_integer() else weight

    @property
    def singular_values(self) -> NDArray[Any]:
        """Norms of the components of the centered codes of the training rows."""
        variance: NDArray[Any] = self.components.known("variance")
        weight = self.seen.weight
        return np.sqrt((weight - 1 if weight >= 2 else weight) * variance)

    @property
    def feature_names(self) -> NDArray[Any]:
        """Names of the columns of `X`. Raises AttributeError unless all of them are strings."""
        if self.schema.names is None:
            raise AttributeError(
                "feature_names_in_ is not defined, because not all column names of X in fit were "
                "strings."
            )
        return self.schema.names

    @property
    def noise_variance(self) -> float | NDArray[Any]:
        """Noise variances, 0 without noise. They are one number if all columns have the same."""
        likelihood = self.density.likelihood
        noise = likelihood.noise_variance.cpu().double().numpy()
        if likelihood.is_pooled:
            return float(noise[0])
        return noise[np.argsort(self.schema.modelled)]

    def without_rows(self) -> Self:
        """Return the model without its sample of training rows, for files."""
        return replace(self, seen=self.seen.without_rows())

    def without_targets(self) -> Self:
        """Return the model without the targets of its sample, which are not those of its task."""
        return replace(self, seen=self.seen.without_targets())

    def tree(self) -> dict[str, Any]:
        """Convert the model to a dict of plain values, numpy arrays and `Stored` objects.

        The dict contains no torch objects and can be restored on any device. The state of the
        random generator is only restored on the same type of device.
        """
        tree = {name: value for name, value in vars(self).items()}
        network, density = tree.pop("network"), tree.pop("density")
        return tree | {
            "dtype": str(network.like.dtype).removeprefix("torch."),
            "n_components": network.latent.n_components,
            "module": to_arrays(network.state_dict()),
            "likelihood": to_arrays(density.likelihood.state_dict()),
            "density": to_arrays(density.tensors()),
        }


class FittedAttribute:
    """Attribute of an estimator that is computed from its fitted model.

    Reading it from an estimator that is not fitted raises NotFittedError.

    Parameters
    ----------
    read : callable
        Function of the fitted model, `_fitted`, that returns the value of the attribute.
    """

    def __init__(self, read: Callable[[Any], Any]) -> None:
        self.read = read

    def __get__(self, estimator: Any, owner: type | None = None) -> Any:
        return self if estimator is None else self.read(estimator._read_fitted())


class Saved(Stored):
    """Mixin for estimators that can be saved to a file with `save` and restored with `load`."""

    _must_be_saved: ClassVar[tuple[str, ...]] = ()
    """Parameters without which `load` could not restore a fitted estimator."""

    # The whole fitted model. It is replaced in a single assignment, and each method reads it once,
    # so that a refit in another thread never mixes two models.
    _fitted: Any = None

    def __sklearn_is_fitted__(self) -> bool:
        return self._fitted is not None

    def _read_fitted(self) -> Any:
        """Return the fitted model, or raise NotFittedError."""
        fitted = self._fitted
        if fitted is None:
            raise NotFittedError(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with "
                "appropriate arguments before using this estimator."
            )
        return fitted

    def _set_fitted(self, fitted: Any, finish: Callable[[], object]) -> None:
        """Replace the fitted model and call `finish`. If that fails, restore the earlier model."""
        before, self._fitted = self._fitted, fitted
        try:
            finish()
        except BaseException:
            if before is None:
                del self._fitted
            else:
                self._fitted = before
            raise

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the estimator to a file, from which `skae.load` restores it.

        On the same device and with the same versions of all packages, the restored estimator gives
        bitwise identical results. The file has the safetensors format and contains only numbers and
        texts. It can therefore be loaded on other devices and with other versions of scikit-learn,
        skorch and Python. An existing file is replaced in a single step, and it is left unchanged
        if saving fails. Its mode is kept, and a symbolic link keeps pointing to it. Functions and
        callbacks are not saved.

        The file contains no training rows, so that the sample of rows which `partial_fit` keeps is
        left out; a pickle contains it. Of columns of conditions, it contains the combinations
        of categories with their weights, and means and covariances of the numbers of groups of
        rows. Of `AutoencoderOutlierDetector`, it contains the median of each column, the scores of
        calibration rows and, for the criteria "neighbors" and "robust", means of groups of rows.

        Parameters
        ----------
        path : str or path-like
            Path of the file. The usual extension is ".safetensors".

        Raises
        ------
        TypeError
            If the class of the estimator is not one of skae, because `load` could not find it, or
            if a parameter without which the model cannot be restored, such as `architecture`, is a
            function or a user-defined object.
        OSError
            If the file cannot be written, for instance because its folder does not exist, or
            because the path is that of a folder or a device.

        Warns
        -----
        UserWarning
            If parameters or attributes whose values are functions, callbacks or other objects are
            not saved. The warning names them. The restored estimator has the defaults of these
            parameters, which are needed for further training only.

        Examples
        --------
        >>> import tempfile, pathlib
        >>> import skae
        >>> X = [[0.0, 1.0], [1.0, 3.0], [2.0, 5.0]]
        >>> fitted = skae.Autoencoder(1, max_epochs=1, random_state=0).fit(X)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "model.safetensors"
        ...     fitted.save(path)
        ...     again = skae.load(path)
        >>> bool((again.transform(X) == fitted.transform(X)).all())
        True
        """
        unsaved = self._unsaved_names()
        files.write(path, KIND, self)
        if unsaved:
            warnings.warn(
                f"{type(self).__name__} was saved without these attributes, which are functions, "
                f"objects or unknown to skae: {', '.join(sorted(unsaved))}. Set them again after "
                "loading.",
                UserWarning,
                stacklevel=2,
            )

    def __getstate__(self) -> dict[str, Any]:
        return without_callback_contexts(dict(super().__getstate__()))  # type: ignore[call-overload]

    def _stored_state(self) -> dict[str, Any]:
        """Return the attributes that a file contains."""
        state = self._attributes()
        return {key: value for key, value in state.items() if self._can_save(key, value)}

    def _attributes(self) -> dict[str, Any]:
        """Return all attributes by the names that they have in files."""
        return super()._stored_state()

    def _can_save(self, key: str, value: Any) -> bool:
        """Return whether a file can contain an attribute."""
        return self._is_valid_name(key) and (isinstance(value, Stored) or files.can_encode(value))

    def _is_valid_name(self, key: str) -> bool:
        """Return whether `key` is the name of a parameter or of a stored attribute."""
        if isinstance(getattr(type(self), key, None), FittedAttribute):
            return False
        return key in self.get_params(deep=False) or ATTRIBUTE.fullmatch(key) is not None  # type: ignore[attr-defined]

    def _unsaved_names(self, prefix: str = "") -> list[str]:
        """Return the names of attributes that files cannot contain, including nested ones.

        Raises TypeError if one of `_must_be_saved` is among them.
        """
        names = []
        for key, value in self._attributes().items():
            if isinstance(value, Saved):
                names += value._unsaved_names(f"{prefix}{key}__")
            elif not self._can_save(key, value):
                if key in self._must_be_saved:
                    raise TypeError(
                        f"{prefix}{key}={short_repr(value)} is a user-defined object, which cannot "
                        "be saved to a file. Use pickle for this estimator."
                    )
                names.append(prefix + key)
        return names

    @classmethod
    def _from_stored_state(cls, state: dict[str, Any]) -> Self:
        """Make an estimator from the attributes that a file contains."""
        estimator: Any = cls()
        state = _with_current_names(state)
        invalid = [key for key in state if not estimator._is_valid_name(key)]
        if invalid:
            raise ValueError(f"{cls.__name__} has no parameter or saved attribute {invalid[0]!r}")
        parameters = estimator.get_params(deep=False)
        estimator.set_params(**{key: state[key] for key in parameters.keys() & state.keys()})
        validate_parameters(estimator)
        containers = state.get("_sklearn_output_config", {})
        if not isinstance(containers, dict) or not matches_type([*containers.values()], list[str]):
            raise ValueError(f"the containers of outputs cannot be {containers!r}")
        if state.get("callbacks"):
            raise ValueError(f"a file contains no callbacks, got {state['callbacks']!r}")
        estimator.__setstate__(state)
        return estimator


def _with_current_names(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of an estimator, with current names of parameters in place of old ones."""
    nested = {
        key: _with_current_names(state[key])
        for key in ("_fitted", "parameters")
        if isinstance(state.get(key), dict)
    }
    state = state | nested
    return {RENAMED_PARAMETERS.get(key, key): value for key, value in state.items()}


def _is_learned(name: str) -> bool:
    """Return whether a name is that of a fitted attribute other than `_fitted`."""
    return name.endswith("_") or name == "_n_features_out"


def load(path: str | os.PathLike[str]) -> Any:
    """Load an estimator from a file that its `save` method has written.

    Files of all earlier versions of skae can be loaded. Loading executes no code from the file, so
    a file from an untrusted source can do no harm other than giving a bad model.

    Parameters
    ----------
    path : str or path-like
        Path of the file.

    Returns
    -------
    estimator : estimator
        Estimator with the parameters and, if it was fitted, the fitted attributes of the saved one.
        Its model is on the device that the parameter `device` of the fit selects, or on the CPU if
        that device is not available.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is not a regular file, was not written by `save`, is damaged, or has the format
        of a later version of skae.

    Examples
    --------
    The example of `Autoencoder.save` saves an estimator and loads the file. Files that are not
    from skae are rejected:

    >>> import skae
    >>> skae.load(skae.__file__)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ValueError: ... is not a file of skae, or it is damaged: ...
    """
    version, content = files.read(path, KIND)
    try:
        estimator = from_format_1(content) if version == 1 else content
        if not isinstance(estimator, Saved):
            raise ValueError(f"{type(estimator).__name__} is not an estimator")
    except files.MALFORMED_ERRORS as error:
        raise ValueError(f"The contents of {os.fspath(path)!r} are invalid: {error}") from error
    return estimator


# ------------------------------------------------------------------- files of format 1


def from_format_1(content: dict[str, Any]) -> Any:
    """Convert the contents of a file of format 1 to an estimator or a part of its state.

    Format 1 describes each object by the name of its class and its state.
    """
    name, state = content["class"], content["state"]
    if name not in CLASSES:
        raise ValueError(f"this version of skae has no class {name!r}")
    columns = state.pop("_columns_", None)
    is_object = {key: isinstance(v, dict) and v.keys() == {*content} for key, v in state.items()}
    state = {key: from_format_1(v) if is_object[key] else v for key, v in state.items()}
    if "_arrays" in state:
        state = _autoencoder_of_format_1(name, state, columns and columns["state"])
    return CLASSES[name]._from_stored_state(state)


def _autoencoder_of_format_1(
    name: str, state: dict[str, Any], columns: dict[str, Any] | None
) -> dict[str, Any]:
    """Convert the state of an autoencoder from format 1 to the state of the current class.

    In format 1, an autoencoder has several fitted attributes instead of `_fitted`.

    Parameters
    ----------
    name : str
        Name of the class.
    state : dict
        Attributes of the autoencoder.
    columns : dict or None
        Attributes of the object that described the columns of conditions, if there were any.
    """
    parameters, arrays = state.pop("_fit_params_"), state.pop("_arrays")
    renamed = {"center": "inputs.center", "scale": "inputs.scale"}
    module = {
        renamed.get(key, re.sub(r"^given\.(center|scale)", r"inputs.condition_\1", key)): value
        for key, value in arrays["module"].items()
    }
    module = {re.sub(r"^given\.", "inputs.", key): value for key, value in module.items()}
    empty = np.zeros(0, arrays["dtype"])
    module = {"inputs.condition_center": empty, "inputs.condition_scale": empty} | module
    d, likelihood = state["n_features_in_"], parameters["likelihood"]
    conditions, seen, modelled = [], None, np.arange(d)
    if columns is not None:
        modelled = columns["modelled"]
        triples = zip(columns["given"], columns["names"], columns["categories"], strict=True)
        conditions = [
            Column._from_stored_state({"index": int(j), "name": text, "levels": levels})
            for j, text, levels in triples
        ]
        cells = _levels(columns["conditions"], conditions)
        seen = DistinctConditions._from_stored_state({"cells": cells, "weight": columns["weight"]})
    parts = {
        "owner": name,
        "n_columns": d,
        "names": state.get("feature_names_in_"),
        "modelled": modelled,
        "conditions": conditions,
        "parameter": "sensitive" if "sensitive" in parameters else "condition",
        "support": Support(likelihood, *LIKELIHOODS[likelihood].support),
        "shape": RowShape(
            parameters.get("feature_shape"), parameters["architecture"] == "recurrent"
        ),
    }
    schema = Schema._from_stored_state(parts)
    fitted = {
        "parameters": parameters,
        "schema": schema,
        "training": arrays["training"],
        "best_epoch": state["best_epoch_"],
        "rows_seen": float(state["_seen_"]),
        "conditions": seen,
        "learned": {k: state[k] for k in ("classes_", "class_prior_") if k in state},
        "dtype": arrays["dtype"],
        "n_components": state["n_components_"],
        "module": module,
        "likelihood": arrays["likelihood"],
        "density": {k: v for k, v in arrays.items() if isinstance(v, np.ndarray)},
    }
    kept = {k: v for k, v in state.items() if not _is_learned(k)}
    return kept | {"_fitted": fitted}


def _levels(cells: NDArray[Any], conditions: list[Column]) -> NDArray[Any]:
    """Convert encoded conditions to cells of shape (n, n_conditions).

    A one-hot encoded condition becomes the index of its level. Numeric conditions are unchanged.
    """
    ends = np.cumsum([max(1, column.n_levels) for column in conditions])[:-1]
    parts = zip(conditions, np.split(cells, ends, axis=1), strict=True)
    columns = [part[:, 0] if c.levels is None else part.argmax(axis=1) for c, part in parts]
    return np.stack(columns, axis=1).astype(np.float64)
