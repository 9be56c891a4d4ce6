"""Callbacks of skorch: which ones a fit accepts, and how parameters of named ones are set."""

from typing import Any, Self

from skae._compat.sklearn import BaseEstimator
from skae.parameters import short_repr

REFUSED = {
    "BatchScoring": "To score each epoch, pass sklearn.callback.ScoringMonitor to set_callbacks.",
    "EpochScoring": "To score each epoch, pass sklearn.callback.ScoringMonitor to set_callbacks.",
    "Freezer": "All weights of the network are trained.",
    "InputShapeSetter": "The network always has the shape of the rows that are passed to fit.",
    "LRScheduler": "fit has a one-cycle schedule, whose peak is the parameter learning_rate, and "
    "the rate of partial_fit falls with the number of rows seen.",
    "LoadInitState": "To resume an interrupted fit, use skae.Checkpoint. To continue the training "
    "of a fitted model, set warm_start=True.",
    "Unfreezer": "All weights of the network are trained.",
}
"""Names of callbacks of skorch that have no meaning for autoencoders, and what to use instead."""


class NamedCallbacks(BaseEstimator):
    """Base class of estimators whose named callbacks have parameters that can be set, as in skorch.

    If `callbacks` contains ``("stop", EarlyStopping())``, the callback is the parameter
    `callbacks__stop`, and its patience is the parameter `callbacks__stop__patience`.
    """

    callbacks: Any

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters of this estimator.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include named callbacks and their parameters.

        Returns
        -------
        params : dict
            Values of the parameters by name.
        """
        params: dict[str, Any] = super().get_params(deep=deep)
        for name, callback in named_callbacks(self.callbacks) if deep else ():
            params[f"callbacks__{name}"] = callback
            if hasattr(callback, "get_params") and not isinstance(callback, type):
                own = callback.get_params(deep=True)
                params |= {f"callbacks__{name}__{key}": value for key, value in own.items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set the parameters of this estimator.

        Parameters
        ----------
        **params
            Parameters of this estimator. ``callbacks__<name>`` replaces a named callback, or
            removes it if the value is None, and ``callbacks__<name>__<parameter>`` sets a parameter
            of a named callback.

        Returns
        -------
        self : object
            This estimator.

        Raises
        ------
        ValueError
            If there is no parameter or no callback with one of the names.
        """
        keys = [key for key in params if key.startswith("callbacks__")]
        nested = {key.split("__", 2)[1]: {} for key in keys}  # type: dict[str, dict[str, Any]]
        replaced = {}
        for key in keys:
            _, name, *rest = key.split("__", 2)
            if rest:
                nested[name][rest[0]] = params.pop(key)
            else:
                replaced[name] = params.pop(key)
        super().set_params(**params)
        callbacks = dict(named_callbacks(self.callbacks))
        for name in nested:
            if name not in callbacks:
                raise ValueError(
                    f"Invalid parameter 'callbacks__{name}' for {type(self).__name__}: the "
                    f"callbacks have the names {sorted(callbacks)}."
                )
        if replaced:
            self.callbacks = [
                (item[0], replaced.get(item[0], item[1])) if is_named(item) else item
                for item in self.callbacks
            ]
            callbacks |= replaced
        for name, own in nested.items():
            if own:
                callbacks[name].set_params(**own)
        return self


def is_named(item: object) -> bool:
    """Return whether an item of a list of callbacks is a pair of a name and a callback."""
    return isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[0], str)


def named_callbacks(callbacks: Any) -> list[tuple[str, Any]]:
    """Return the pairs of a name and a callback in a list of callbacks."""
    items = callbacks if isinstance(callbacks, (list, tuple)) else []
    return [(item[0], item[1]) for item in items if is_named(item)]


def without_names(callbacks: Any) -> list[Any]:
    """Return the callbacks of a list without their names.

    A pair whose callback is None stands for no callback.
    """
    plain = [item[1] if is_named(item) else item for item in callbacks or []]
    return [
        callback
        for callback, item in zip(plain, callbacks or [], strict=True)
        if callback is not None or not is_named(item)
    ]


def check_skorch_callbacks(callbacks: Any) -> None:
    """Raise TypeError or ValueError if a list of callbacks cannot be used in a fit."""
    names = [name for name, _ in named_callbacks(callbacks)]
    if len(set(names)) < len(names) or any("__" in name for name in names):
        raise ValueError(
            "Names of callbacks must be unique and must not contain two underscores, got "
            f"{short_repr(names)}."
        )
    for callback in without_names(callbacks):
        if not hasattr(callback, "on_train_begin"):
            raise TypeError(
                "callbacks must be skorch callbacks or pairs of a name and a skorch callback, got "
                f"{short_repr(callback)}."
            )
        of_skorch = {
            base.__name__
            for base in (callback if isinstance(callback, type) else type(callback)).__mro__
            if base.__module__.partition(".")[0] == "skorch"
        }
        refused = sorted(of_skorch & REFUSED.keys())
        if refused:
            raise ValueError(
                f"callbacks must not contain skorch's {refused[0]}, got {short_repr(callback)}. "
                f"{REFUSED[refused[0]]}"
            )
        if "Callback" in of_skorch and getattr(callback, "load_best", False):
            raise ValueError(
                f"callbacks must not restore weights, got {short_repr(callback)} with "
                "load_best=True. Set early_stopping=True to keep the weights of the best epoch."
            )
