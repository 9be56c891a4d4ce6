"""Estimators in files that load for ever: parameters and arrays, no code."""

import os
import re
import warnings
from typing import Any, ClassVar

from skae import files
from skae._compat.sklearn import validate_parameters
from skae.files import CLASSES, Stored

KIND = "estimator"

ATTRIBUTE = re.compile(r"_?[a-z][a-z0-9_]*_|_arrays|_n_features_out|_sklearn_output_config")
"""Names, beside parameters, that a saved state may have."""


class Saved(Stored):
    """Estimators with a method `save`; `load` reads what it writes."""

    _indispensable: ClassVar[tuple[str, ...]] = ()
    """Parameters without which a fitted estimator could not be put together again."""

    def _learnt(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k.endswith("_") or k == "_n_features_out"}

    def _adopt(self, other: "Saved") -> None:
        """Forget what a fit has left here and take over what one has left in `other`."""
        for name in self._learnt():
            delattr(self, name)
        self.__dict__.update(other._learnt())

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
        left_out: list[str] = []
        files.write(path, KIND, _tree(self, left_out))
        if left_out:
            warnings.warn(
                f"Functions, objects and foreign attributes of this {type(self).__name__} are not "
                f"saved: {', '.join(sorted(left_out))}. Set them again after loading.",
                UserWarning,
                stacklevel=2,
            )


def _tree(thing: Stored, left_out: list[str], prefix: str = "") -> dict[str, Any]:
    """What a file holds of an object; names of what it does not are added to `left_out`."""
    name = type(thing).__name__
    if CLASSES.get(name) is not type(thing):
        raise TypeError(f"{name} is not one of skae's estimators: use pickle for it.")
    state: dict[str, Any] = {}
    for key, value in (thing.__getstate__() or {}).items():  # type: ignore[attr-defined]
        if isinstance(value, Stored):
            state[key] = _tree(value, left_out, f"{prefix}{key}__")
        elif _is_known(key, thing) and files.fits(value):
            state[key] = value
        elif key in getattr(thing, "_indispensable", ()):
            raise TypeError(
                f"{prefix}{key}={value!r} is an object of your own, code that a file cannot hold: "
                "use pickle for this estimator."
            )
        else:
            left_out.append(prefix + key)
    return {"class": name, "state": state}


def _is_known(key: str, thing: Any) -> bool:
    """Whether an object may have what `key` names; estimators say which parameters they have."""
    if not isinstance(thing, Saved):
        return True
    return key in thing.get_params(deep=False) or ATTRIBUTE.fullmatch(key) is not None  # type: ignore[attr-defined]


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
    content = files.read(path, KIND)
    try:
        estimator = _object(content)
        if not isinstance(estimator, Saved):
            raise ValueError(f"a {type(estimator).__name__} is no estimator")
    except files.MALFORMED as error:
        raise ValueError(f"The contents of {os.fspath(path)!r} make no sense: {error}") from error
    return estimator


def _object(content: dict[str, Any]) -> Any:
    """The object that `_tree` has described."""
    name, state = content["class"], content["state"]
    if name not in CLASSES:
        raise ValueError(f"this version of skae has no estimator {name!r}")
    is_object = {key: isinstance(v, dict) and v.keys() == {*content} for key, v in state.items()}
    state = {key: _object(value) if is_object[key] else value for key, value in state.items()}
    if not issubclass(CLASSES[name], Saved):
        thing: Any = object.__new__(CLASSES[name])
        vars(thing).update(state)
        return thing
    estimator: Any = CLASSES[name]()
    unknown = [key for key in state if not _is_known(key, estimator)]
    if unknown:
        raise ValueError(f"{name} has no {unknown[0]!r}")
    parameters = estimator.get_params(deep=False)
    estimator.set_params(**{key: state[key] for key in parameters.keys() & state.keys()})
    validate_parameters(estimator)
    estimator.__setstate__(state)
    return estimator
