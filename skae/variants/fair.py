"""Fair autoencoder: its codes hide sensitive columns and keep other information."""

from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from skae._compat.sklearn import Interval
from skae.base import BaseAutoencoder, Floats, MatrixLike
from skae.density.importance import Importance
from skae.inference import codes
from skae.nn.adversaries import N_ADVERSARIES, Adversaries
from skae.nn.draws import Draws, KeyedDraws
from skae.nn.latent import Code, Encode, Latent
from skae.state import TableInfo
from skae.table.audit import audit
from skae.table.schema import ColumnKey
from skae.table.targets import (
    Targets,
    read_multiclass,
    read_numbers,
    targets_of_positive_weight,
)
from skae.training.heads import Classes, Family, Head, Numbers
from skae.variants.conditioned import COLUMN_KEY, ConditionedAutoencoder
from skae.variants.variational import Variational

CODES_PER_ROW = 4
"""Number of codes of each row that the adversaries receive at each step."""

PENALTY_WARM_UP = 0.25
"""Share of training during which the weight of the adversarial penalty rises from 0."""


class Fair(Variational):
    """A normally distributed code from which adversaries should not predict sensitive columns.

    The adversaries are trained together with the code. The penalty is the number of nats by which
    their predictions are better than predictions without the code, up to a constant.

    Parameters
    ----------
    n_components : int
    penalty_weight : float
        Weight of the penalty.
    widths : sequence of int
        Number of cells that encode each sensitive column: the number of categories, or 1 for a
        column of numbers.
    """

    # A trained noise variance would shrink. Codes would become precise and would hide nothing.
    learns_noise = False
    # The objective does not rank epochs. Codes would look best while the adversaries are weakest.
    ranks_epochs = False

    def __init__(self, n_components: int, penalty_weight: float, widths: Sequence[int]) -> None:
        super().__init__(n_components, False, 1.0, 0.0, 1)
        # The attribute name `panel` is part of the keys in saved files.
        self.penalty_weight, self.panel = penalty_weight, Adversaries(n_components, widths)

    def start_from(self, h: Tensor, weight: Tensor, generator: torch.Generator) -> None:
        self.panel.reset(generator)

    def inference_draws(self, x: Tensor) -> Draws:
        # The noise hides the sensitive columns, so codes are also noisy outside training. Draws
        # that depend only on the row make them reproducible.
        return KeyedDraws(x)

    def forward(self, h: Tensor, draws: Draws | None) -> Code:
        code = super().forward(h, draws)
        return code._replace(mean=code.z[0])

    def penalty(
        self, code: Code, x: Tensor, encode: Encode, weight: Tensor, draws: Draws | None
    ) -> Tensor | float:
        penalty = super().penalty(code, x, encode, weight, draws)
        if not self.training or draws is None or code.conditions is None:
            return penalty
        z = self.propose(code.h, CODES_PER_ROW, draws)[0]
        code_loss = self.panel(z, code.conditions, weight, train=False)
        adversary_loss = self.panel(z.detach(), code.conditions, weight, train=True)
        adversary_loss = N_ADVERSARIES * (weight @ adversary_loss) / weight.sum()
        rise = (draws.schedule() / PENALTY_WARM_UP).clamp_max(1.0)
        # The last term trains the adversaries. Its value is 0, so it does not change the objective.
        penalty = penalty - self.penalty_weight * rise * code_loss
        return penalty + (adversary_loss - adversary_loss.detach())


class FairAutoencoder(ConditionedAutoencoder):
    """Autoencoder whose codes hide sensitive columns and keep other information about rows.

    The encoder does not receive the sensitive columns. The decoder does, so that it can restore
    rows from codes that contain no information about these columns [1]_. Other columns may still
    reveal the sensitive ones. This information is hidden in two ways. Codes are noisy. In addition,
    small networks, the adversaries, are trained at the same time to predict the sensitive columns
    from the codes, and a penalty on the codes makes their predictions worse [2]_.

    `transform` returns the noisy code. Training hides information in this code, not in its mean,
    which would reveal what the noise conceals. The noise is computed from a hash of the columns
    that are not sensitive. A row therefore has the same code at each call and in any table, and
    changes in its sensitive columns do not change its code.

    `audit` reports how well the sensitive columns can be predicted from the codes. There is no
    guarantee: better predictors, or predictors that use other data about the same rows, may reveal
    more. If `y` is passed to `fit`, codes are also trained to predict it; use `y` if the codes
    serve a single purpose.

    Parameters
    ----------
    n_components : int, float or "auto", default="auto"
        Number of components of the code. A float in (0, 1) selects as many components as PCA needs
        to explain that share of the variance. "auto" is twice the rounded square root of the number
        of columns that are not sensitive, because noise uses up a part of the code.

    sensitive : str, int, array-like of these, slice, mask, callable or None, default=None
        The columns to hide, selected as in `sklearn.compose.ColumnTransformer`: by names in a data
        frame, by numbers, by a slice or a mask, or by a callable that receives the table and
        returns one of these. Columns of texts, categories or booleans, and columns of at most 20
        distinct integers, are categorical; others are numerical. None hides nothing, and the model
        is a variational autoencoder.

    leak_weight : float, default=1.0
        Weight of the penalty on what adversaries predict of the sensitive columns. It is multiplied
        by the number of other columns, against whose reconstruction errors it is weighed: with the
        default, each revealed nat costs as much as one nat of reconstruction in every other column.
        Larger values, up to about 3, hide more and keep less. With even larger values the
        adversaries cannot follow the codes, and less is hidden. The weight rises from 0 during the
        first quarter of training. 0 disables the penalty.

    label_weight : float, default=10.0
        Weight of the loss on `y`, if it is passed: nats of reconstruction that one nat of this loss
        counts for. It must be positive. Larger values give codes that predict `y` better and
        restore rows less well.

    See Also
    --------
    ConditionalVariationalAutoencoder : Passes conditions to the encoder, too, and hides nothing.

    Notes
    -----
    The objective is the evidence lower bound minus the penalty: `leak_weight` times the number of
    other columns times the nats by which the adversaries' predictions are better than predictions
    without the code. The variance of the Gaussian likelihood is fixed at the mean variance of the
    columns during training, so that codes stay noisy, and estimated afterwards for the density.

    There are four adversaries with two hidden layers of 64 units each. They receive four codes of
    each row at each training step, and their weights change three times as fast as those of the
    autoencoder. Validation rows do not select the epoch, because codes would look best in epochs in
    which the adversaries predict badly; the weights of the last epoch are kept.

    Most users set only `sensitive`, `leak_weight`, `max_epochs` and `random_state`: increase
    `leak_weight` if `audit` reports that the codes reveal too much, decrease it if they lose too
    much, and increase `max_epochs` if the loss still decreases at the end.

    References
    ----------
    .. [1] C. Louizos, K. Swersky, Y. Li, M. Welling and R. Zemel, "The variational fair
       autoencoder", ICLR 2016.
    .. [2] H. Edwards and A. Storkey, "Censoring representations with an adversary", ICLR 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from skae import FairAutoencoder
    >>> rng = np.random.default_rng(0)
    >>> group, useful = rng.integers(2, size=400), rng.normal(size=(400, 2))
    >>> X = np.c_[useful, useful + rng.normal(size=(400, 2)), group + rng.normal(size=400) / 3]
    >>> X = np.c_[X, group]
    >>> fair = FairAutoencoder(sensitive=-1, max_epochs=30, random_state=0).fit(X)
    >>> other = X.copy()
    >>> other[:, -1] = 1 - group
    >>> bool((fair.transform(other) == fair.transform(X)).all())
    True
    >>> report = fair.audit(X)
    >>> leak = report.loc[("5", "forest", "auc")]
    >>> bool(leak["rows"] > 0.9 and leak["code"] < 0.75)
    True
    """

    sensitive: ColumnKey = None
    leak_weight: float = 1.0
    label_weight: float = 10.0

    _condition_parameter = "sensitive"
    _must_be_saved = (*BaseAutoencoder._must_be_saved, "sensitive")
    _encoder_uses_conditions = False

    _density = Importance

    _parameter_constraints: ClassVar = {
        "sensitive": COLUMN_KEY,
        "leak_weight": [Interval(Real, 0, None, closed="left")],
        "label_weight": [Interval(Real, 0, None, closed="neither")],
    }

    def _auto_components(self, n_features: int) -> int:
        return 2 * super()._auto_components(n_features)

    def _make_latent(self, n_components: int, table: TableInfo) -> Latent:
        schema = table.schema
        if not schema.conditions:
            return Variational(n_components, False, 1.0, 0.1, 1)
        widths = [max(1, n_levels) for n_levels in schema.n_levels]
        return Fair(n_components, self.leak_weight * len(schema.modelled), widths)

    def _read_targets(self, y: Any, weight: Floats, learned: dict[str, Any]) -> Targets | None:
        if y is None:
            return None
        y, weight = targets_of_positive_weight(y, weight, self)
        y = np.asarray(y)
        # Constant targets carry no information and are treated as missing.
        if (y == y[:1]).all():
            return None
        family: Family = Classes()
        if y.dtype.kind == "f" and not (y == np.round(y)).all():
            family, targets = Numbers.standardize(read_numbers(y), weight)
        else:
            targets = read_multiclass(y, None, weight)[1]
        return replace(targets, loss=Head(family, self.label_weight, 1.0))

    def fit(
        self,
        X: MatrixLike,
        y: MatrixLike | None = None,
        sample_weight: MatrixLike | None = None,
        X_corrupted: MatrixLike | None = None,
    ) -> Self:
        """Train the autoencoder and estimate the density of its rows.

        If the fit fails or is interrupted, a previously fitted model is left unchanged.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows, including their sensitive columns.
        y : array-like of shape (n_samples,), default=None
            Targets that the codes should predict: classes, with -1 for unknown ones, or numbers,
            with NaN for unknown ones. Constant targets have the same effect as None.

        Raises
        ------
        ValueError
            If X or y is invalid, or if training breaks down.
        TypeError
            If X is sparse, or if a sensitive column contains values of several types.
        """
        return super().fit(X, y, sample_weight, X_corrupted)

    def audit(self, X: MatrixLike, y: MatrixLike | None = None) -> pd.DataFrame:
        """Measure how well the sensitive columns, and a target, can be predicted from the codes.

        Classifiers ("probes") are trained on four fifths of the rows and evaluated on the other
        fifth, five times. The random forest ("forest") finds information of any form. Logistic
        regression ("linear") finds only what a linear map reveals, which alone is no evidence of
        privacy: codes can hide everything from it and reveal everything to a forest.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows with their sensitive columns, preferably rows that were not used for training.
        y : array-like of shape (n_samples,), default=None
            Classes that the codes should predict, with -1 for unknown ones.

        Returns
        -------
        report : DataFrame
            One row for each (target, probe, measure). The columns are "nothing", the value for
            predictions that use no data; "rows", for predictions from the columns that are not
            sensitive; and "code", for predictions from the output of `transform`. The measures are
            "accuracy" and "auc", the area under the ROC curve (for several classes the mean of one
            against the rest). For `y` there is also "parity gap, <column>", the largest difference
            between the groups of that sensitive column in how often a class is predicted. A
            numerical sensitive column is split into two classes at its median.

        Raises
        ------
        ValueError
            If the model has no sensitive columns, or if a target has a single class or a class
            with fewer than five rows.
        """
        fitted = self._read_fitted()
        schema = fitted.schema
        if not schema.conditions:
            raise ValueError("audit needs sensitive columns: set sensitive and fit again.")
        rows = schema.read(X)
        pairs = zip(schema.conditions, rows.conditions.T, strict=True)
        sensitive = {column.name: column.classes(cells) for column, cells in pairs}
        return audit({"rows": rows.modelled, "code": codes(rows, fitted)}, sensitive, y)
