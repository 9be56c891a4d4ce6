"""Estimators in files that load for ever: parameters and arrays, no code."""

import os
import re
import warnings
from collections.abc import Container
from typing import Any

from skae import files

KIND = "estimator"

ATTRIBUTE = re.compile(r"_?[a-z][a-z0-9_]*_|_arrays|_n_features_out|_sklearn_output_config")
"""Names, beside parameters, that a saved state may have."""

CLASSES: dict[str, type] = {}
"""skae's estimators by name."""


class Saved:
    """Estimators with a method `save`; `load` reads what it writes.

    Their `__getstate__` gives plain values and arrays, whose layout is part of the file format.
    """

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith("skae."):
            CLASSES[cls.__name__] = cls

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
            Where the class is not one of skae's own: `load` could not find it.

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
        name = type(self).__name__
        if CLASSES.get(name) is not type(self):
            raise TypeError(f"{name} is not one of skae's estimators: use pickle for it.")
        state: dict[str, Any] = self.__getstate__()  # type: ignore[assignment]
        known = type(self)().get_params(deep=False)  # type: ignore[attr-defined]
        left_out = sorted(
            key for key, value in state.items() if not (_is_known(key, known) and files.fits(value))
        )
        kept = {key: value for key, value in state.items() if key not in left_out}
        files.write(path, KIND, {"class": name, "state": kept})
        if left_out:
            warnings.warn(
                f"Functions, objects and foreign attributes of this {name} are not saved: "
                f"{', '.join(left_out)}. Set them again after loading.",
                UserWarning,
                stacklevel=2,
            )


def _is_known(key: str, parameters: Container[str]) -> bool:
    return key in parameters or ATTRIBUTE.fullmatch(key) is not None


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
        name, state = content["class"], content["state"]
        if name not in CLASSES:
            raise ValueError(f"this version of skae has no estimator {name!r}")
        estimator: Any = CLASSES[name]()
        parameters = estimator.get_params(deep=False)
        unknown = [key for key in state if not _is_known(key, parameters)]
        if unknown:
            raise ValueError(f"{name} has no {unknown[0]!r}")
        estimator.set_params(**{key: state[key] for key in parameters.keys() & state.keys()})
        estimator._validate_params()
        estimator.__setstate__(state)
    except files.MALFORMED as error:
        raise ValueError(f"The contents of {os.fspath(path)!r} make no sense: {error}") from error
    return estimator
