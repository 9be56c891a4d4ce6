"""What a fit leaves: the state of a model, and files in which models are kept."""

import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from skae import files
from skae._compat.sklearn import validate_parameters
from skae.density.base import Density
from skae.files import CLASSES, Stored
from skae.nn.likelihoods import LIKELIHOODS
from skae.nn.network import Network
from skae.table.columns import Column, Support
from skae.table.schema import Schema, SeenConditions
from skae.table.sequences import RowShape
from skae.training.loop import to_arrays

KIND = "estimator"

RENAMED: dict[str, str] = {"commitment": "commitment_cost", "score": "criterion"}
"""Parameters that files of formats 1 and 2 hold under another name, and their present names."""

ATTRIBUTE = re.compile(r"_?[a-z][a-z0-9_]*_|_fitted|_n_features_out|_sklearn_output_config")
"""Names, beside parameters, that a saved state may have."""


class NetworkMismatchError(ValueError):
    """Parameters describe another network than the one from which training is to go on."""


class Known(NamedTuple):
    """What is known of a table before a network for it is built.

    `schema` says what its columns are, and `learned` what targets have taught, such as classes.
    """

    schema: Schema
    learned: dict[str, Any]


@dataclass(frozen=True)
class Fitted:
    """A fitted model. It never changes: a fit makes a new one.

    Attributes
    ----------
    parameters : dict
        Those parameters of the fit that shape the model.
    schema : Schema
        How tables are read and written.
    network : Network
        The trained network.
    density : Density
        The distribution of codes and rows.
    training : dict
        History, generator and optimizer's state, in numbers and arrays.
    best_epoch : int
        The epoch whose weights were kept.
    rows_seen : float
        Weight of the rows that the density was estimated from.
    conditions : SeenConditions or None
        Conditions of training rows.
    learned : dict
        What a variant has learned from targets.
    """

    parameters: dict[str, Any]
    schema: Schema
    network: Network
    density: Density
    training: dict[str, Any]
    best_epoch: int
    rows_seen: float
    conditions: SeenConditions | None
    learned: dict[str, Any]

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was recorded at each epoch."""
        return self.training["history"]

    def curve(self, name: str) -> list[float]:
        """A number of each epoch; nothing where it was not recorded."""
        return [epoch[name] for epoch in self.history if name in epoch]

    @property
    def feature_names(self) -> NDArray[Any]:
        """Names of the user's columns."""
        if self.schema.names is None:
            raise AttributeError("feature_names_in_: not all columns of X had texts for names")
        return self.schema.names

    @property
    def noise_variance(self) -> float | NDArray[Any]:
        """Gaussian noise, one number unless each column has its own."""
        noise = self.density.likelihood.noise_variance.cpu().double().numpy()
        return noise if self.parameters["noise"] == "diagonal" else float(noise[0])

    def tree(self) -> dict[str, Any]:
        """The model in plain values, arrays and stored objects: free of torch and of devices."""
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
    """An attribute of an estimator that is read from its fitted model.

    Parameters
    ----------
    read : callable
        Its value for a fitted model.
    """

    def __init__(self, read: Callable[[Fitted], Any]) -> None:
        self.read = read

    def __get__(self, estimator: Any, owner: type | None = None) -> Any:
        return self if estimator is None else self.read(estimator._read_fitted())


class Saved(Stored):
    """Estimators with a method `save`; `load` reads what it writes."""

    _indispensable: ClassVar[tuple[str, ...]] = ()
    """Parameters without which a fitted estimator could not be put together again."""

    def _adopt(self, other: "Saved") -> None:
        """Take over what a fit has left in `other`, in one assignment: all of it or nothing."""
        kept = {k: v for k, v in vars(self).items() if not _is_learned(k)}
        self.__dict__ = kept | {k: v for k, v in vars(other).items() if _is_learned(k)}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the estimator to a file, from which `skae.load` restores it bit by bit.

        The file is in the safetensors format and holds numbers and texts only: it depends neither
        on the device nor on the versions of scikit-learn, skorch or Python. An existing file is
        replaced in one step. Functions and callbacks are not saved: a warning names them.

        Parameters
        ----------
        path : str or path-like
            Where to write; ".safetensors" is the usual ending.

        Raises
        ------
        TypeError
            Where the class is not one of skae's own, which `load` could not find, or the
            architecture is an object of yours.

        Warns
        -----
        UserWarning
            Where something that only further training needs is not saved.

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
        left_out = self._left_out()
        files.write(path, KIND, self)
        if left_out:
            warnings.warn(
                f"Functions, objects and foreign attributes of this {type(self).__name__} are not "
                f"saved: {', '.join(sorted(left_out))}. Set them again after loading.",
                UserWarning,
                stacklevel=2,
            )

    def _stored_state(self) -> dict[str, Any]:
        """What a file holds of the estimator."""
        state = super()._stored_state()
        return {key: value for key, value in state.items() if self._can_hold(key, value)}

    def _can_hold(self, key: str, value: Any) -> bool:
        """Whether a file can hold an attribute."""
        return self._is_known(key) and (isinstance(value, Stored) or files.fits(value))

    def _is_known(self, key: str) -> bool:
        """Whether the estimator may have what `key` names."""
        if isinstance(getattr(type(self), key, None), FittedAttribute):
            return False
        return key in self.get_params(deep=False) or ATTRIBUTE.fullmatch(key) is not None  # type: ignore[attr-defined]

    def _left_out(self, prefix: str = "") -> list[str]:
        """Names of what files do not hold; raises TypeError where something indispensable is."""
        names = []
        for key, value in super()._stored_state().items():
            if isinstance(value, Saved):
                names += value._left_out(f"{prefix}{key}__")
            elif not self._can_hold(key, value):
                if key in self._indispensable:
                    raise TypeError(
                        f"{prefix}{key}={value!r} is an object of your own, code that a file "
                        "cannot hold: use pickle for this estimator."
                    )
                names.append(prefix + key)
        return names

    @classmethod
    def _from_stored_state(cls, state: dict[str, Any]) -> Self:
        """The estimator that a file holds."""
        estimator: Any = cls()
        state = _with_present_names(state)
        unknown = [key for key in state if not estimator._is_known(key)]
        if unknown:
            raise ValueError(f"{cls.__name__} has no {unknown[0]!r}")
        parameters = estimator.get_params(deep=False)
        estimator.set_params(**{key: state[key] for key in parameters.keys() & state.keys()})
        validate_parameters(estimator)
        estimator.__setstate__(state)
        return estimator


def _with_present_names(state: dict[str, Any]) -> dict[str, Any]:
    """The state of an estimator with the names that its parameters have now."""
    nested = {
        key: _with_present_names(state[key])
        for key in ("_fitted", "parameters")
        if isinstance(state.get(key), dict)
    }
    state = state | nested
    return {RENAMED.get(key, key): value for key, value in state.items()}


def _is_learned(name: str) -> bool:
    return name.endswith("_") or name == "_n_features_out"


def load(path: str | os.PathLike[str]) -> Any:
    """The estimator that a `save` method has written to a file.

    Files of all earlier versions of skae load. No code is executed, so that a file from elsewhere
    can do no harm beyond being a bad model.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    estimator : estimator
        With the same parameters and, if it was fitted, the same fitted attributes; on the device
        that its `device` names if that is there, else on the processor.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    ValueError
        Where it was not written by `save`, is damaged, or was written by a later version.

    Examples
    --------
    >>> import skae
    >>> skae.load(skae.__file__)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ValueError: ... is not a file of skae's, or it is damaged: ...
    """
    version, content = files.read(path, KIND)
    try:
        estimator = from_format_1(content) if version == 1 else content
        if not isinstance(estimator, Saved):
            raise ValueError(f"a {type(estimator).__name__} is no estimator")
    except files.MALFORMED as error:
        raise ValueError(f"The contents of {os.fspath(path)!r} make no sense: {error}") from error
    return estimator


# ------------------------------------------------------------------- files of format 1


def from_format_1(content: dict[str, Any]) -> Any:
    """The object in a file of format 1, whose trees describe objects by class and state."""
    name, state = content["class"], content["state"]
    if name not in CLASSES:
        raise ValueError(f"this version of skae has no {name!r}")
    columns = state.pop("_columns_", None)
    is_object = {key: isinstance(v, dict) and v.keys() == {*content} for key, v in state.items()}
    state = {key: from_format_1(v) if is_object[key] else v for key, v in state.items()}
    if "_arrays" in state:
        state = _autoencoder_of_format_1(name, state, columns and columns["state"])
    return CLASSES[name]._from_stored_state(state)


def _autoencoder_of_format_1(
    name: str, state: dict[str, Any], columns: dict[str, Any] | None
) -> dict[str, Any]:
    """The state of an autoencoder whose fit left many attributes instead of one."""
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
        seen = SeenConditions._from_stored_state({"cells": cells, "weight": columns["weight"]})
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
        "rows_seen": state["_seen_"],
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
    """Numbers of levels in the place of one-hot cells."""
    ends = np.cumsum([max(1, column.n_levels) for column in conditions])[:-1]
    parts = zip(conditions, np.split(cells, ends, axis=1), strict=True)
    columns = [part[:, 0] if c.levels is None else part.argmax(axis=1) for c, part in parts]
    return np.stack(columns, axis=1).astype(np.float64)
