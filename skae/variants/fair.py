"""Fair autoencoder: its codes hide sensitive columns and keep other information."""

from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar, Self

import pandas as pd
import torch
from torch import Tensor

from skae._compat.sklearn import Interval
from skae.base import BaseAutoencoder, Floats, MatrixLike
from skae.density.importance import Importance
from skae.inference import codes, encoded_rows
from skae.nn.adversaries import N_ADVERSARIES, Adversaries
from skae.nn.draws import Draws, KeyedDraws
from skae.nn.latent import Code, Encode, Latent
from skae.state import TableInfo
from skae.table.audit import audit
from skae.table.blocks import ColumnKey
from skae.table.targets import Targets, targets_of_positive_weight
from skae.training.heads import Head, read_classes_or_numbers
from skae.variants.conditioned import COLUMN_KEY, ConditionedAutoencoder
from skae.variants.variational import Variational

CODES_PER_ROW = 4
"""Number of codes of each row that the adversaries receive at each step."""

PENALTY_WARM_UP = 0.25
"""Share of the training steps during which the weight of the adversarial penalty rises from 0. It
has its full value from the first step if training resumes from an earlier fit."""


class Fair(Variational):
    """Codes with a normal posterior from which adversaries should not predict sensitive columns.

    The adversaries are trained together with the encoder. During training, the penalty is the
    divergence of the posterior from the prior plus `penalty_weight` times the number of nats by
    which the predictions of the adversaries are better than predictions without the code, up to a
    constant. Validation rows have the divergence as their only penalty.

    Parameters
    ----------
    n_components : int
        Number of components of the code.
    penalty_weight : float
        Weight of the predictions of the adversaries in the penalty.
    widths : sequence of int
        Number of cells that encode each sensitive column: the number of categories, or 1 for a
        column of numbers.
    """

    # A trained noise variance would shrink. Codes would then be precise and would hide nothing.
    learns_noise = False
    # The objective on validation rows does not contain the penalty on the adversaries' predictions.
    # It would select an early epoch, in which the codes still reveal the sensitive columns.
    ranks_epochs = False

    def __init__(self, n_components: int, penalty_weight: float, widths: Sequence[int]) -> None:
        super().__init__(n_components, False, 1.0, 0.0, 1)
        # The attribute name `panel` is part of the keys in saved files.
        self.penalty_weight, self.panel = penalty_weight, Adversaries(n_components, widths)

    def start_from(self, h: Tensor, weight: Tensor, generator: torch.Generator) -> None:
        self.panel.reset(generator)

    def inference_draws(self, x: Tensor) -> Draws:
        # The noise hides the sensitive columns, so codes are noisy outside training, too. They are
        # reproducible, because the draws depend only on the modelled columns of the row.
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
        rise = draws.rise(PENALTY_WARM_UP)
        # The last term trains the adversaries. Its value is 0, so it does not change the objective.
        penalty = penalty - self.penalty_weight * rise * code_loss
        return penalty + (adversary_loss - adversary_loss.detach())


class FairAutoencoder(ConditionedAutoencoder):
    """Autoencoder whose codes hide sensitive columns and keep other information about rows.

    The encoder does not receive the sensitive columns. The decoder receives them, so that it can
    restore rows from codes that contain no information about these columns [1]_. The other columns
    may still reveal the sensitive ones. Two methods hide this information. First, the code is a
    random draw from a normal distribution that the encoder computes, the posterior. Second, small
    networks, the adversaries, are trained at the same time to predict the sensitive columns from
    the codes. A penalty trains the encoder to make these predictions worse [2]_.

    `transform` returns the random draw and not the mean of the posterior, because the mean would
    reveal the information that the noise of the draw hides. The noise is computed from a hash of
    the columns that are not sensitive. A row therefore has the same code at each call and in any
    table. Changes in its sensitive columns do not change its code.

    `audit` reports how well the sensitive columns can be predicted from the codes. The report is
    not a guarantee: better predictors, or predictors that use other data about the same rows, may
    reveal more. If `y` is passed to `fit`, the codes are also trained to predict it. Pass `y` if
    its prediction is the only purpose of the codes.

    Parameters
    ----------
    n_components : int, float, "auto", "mle" or None, default="auto"
        Number of components of the code. A float in (0, 1) selects as many components as PCA of the
        columns that are not sensitive needs to explain that share of their variance. "auto" is
        twice the rounded square root of the number of these columns. The factor of two compensates
        for the noise of the codes, which reduces the information in each component.

    sensitive : str, int, array-like of these, slice, mask, callable or None, default=None
        The columns to hide, selected as in `sklearn.compose.ColumnTransformer`: by names in a data
        frame, by indices, by a slice or a mask, or by a callable that receives the table and
        returns one of these. At least one column of `X` must remain. Sensitive columns of strings,
        categories or booleans, and those with at most 20 distinct whole numbers, are categorical.
        Other sensitive columns are numerical. None hides nothing: the model is then a variational
        autoencoder, `transform` returns the mean of the posterior, and `audit` raises ValueError.

    leak_weight : float, default=1.0
        Weight of the penalty on the predictions of the adversaries. It must not be negative. The
        penalty is multiplied by the number of columns that are not sensitive. With the default,
        one nat of information about the sensitive columns therefore has the same weight as one nat
        of reconstruction in each of the other columns. Larger values, up to about 3, hide more and
        keep less. With even larger values, the adversaries cannot follow the changes of the codes,
        and less is hidden. The weight increases linearly from 0 during the first quarter of the
        training steps, except in `partial_fit` and in fits that resume from an earlier one
        (`warm_start`). 0 disables the penalty.

    label_weight : float, default=10.0
        Weight of the loss of a linear prediction of `y` from the code, relative to the rest of the
        objective. It must be positive. For classes, the loss is the cross-entropy, in nats. For
        numbers, it is half the squared error, divided by the variance of `y`. Larger values give
        codes that predict `y` better and restore rows less well. If `y` is not passed,
        `label_weight` has no effect.

    See Also
    --------
    ConditionalVariationalAutoencoder : Passes some columns to the encoder, too, and hides nothing.

    Notes
    -----
    The objective is the evidence lower bound minus a penalty. Up to a constant, the penalty is the
    product of `leak_weight`, the number of columns that are not sensitive, and the number of nats
    by which the predictions of the adversaries are better than predictions without the code. If the
    predictions are worse, this number is negative, but at least -2 for each sensitive column. For a
    numerical sensitive column, the adversaries predict only the expected value of a row. The codes
    may therefore still reveal how much the values vary around it.

    If `noise` is not a float, the variance of the Gaussian likelihood is fixed during training at
    the mean variance of the columns that are not sensitive. A trained variance would shrink. The
    codes would then contain less noise and would hide less. The variance is estimated after
    training, from a sample of at most 2,048 rows. The estimate uses the validation rows in this
    sample if there are at least 30 of them, and all rows of the sample otherwise.

    There are four adversaries with two hidden layers of 64 units each. They receive four codes of
    each row at each training step, and their weights change three times as fast as those of the
    autoencoder. The objective on validation rows does not contain the penalty. Validation rows
    therefore do not select the epoch, and the weights of the last epoch are kept.

    If `sensitive` is None, the model is trained in the same way as a `VariationalAutoencoder`.

    If floats are passed as `y`, they are numbers if at least one of them is NaN or not a whole
    number, and NaN marks an unknown one. All other targets are classes, and -1 marks an unknown
    one, unless -1 and 1 are the only classes. The same target for all rows has the same effect as
    None.

    `fit` raises ValueError if `sensitive` selects no column or all columns or if a value of a
    sensitive column is missing, and TypeError if the values of a sensitive column are not all
    strings, all numbers or all booleans.

    Most users set only `sensitive`, `leak_weight`, `max_epochs` and `random_state`. Increase
    `leak_weight` if `audit` reports that the codes reveal too much, and decrease it if they lose
    too much. Increase `max_epochs` if the loss still decreases at the end.

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
    >>> noisy = useful + rng.normal(size=(400, 2))
    >>> proxy = group + rng.normal(size=400) / 3
    >>> X = np.column_stack([useful, noisy, proxy, group])
    >>> fair = FairAutoencoder(sensitive=5, max_epochs=30, random_state=0).fit(X)

    The code of a row does not depend on its group:

    >>> flipped = np.column_stack([useful, noisy, proxy, 1 - group])
    >>> bool((fair.transform(flipped) == fair.transform(X)).all())
    True

    A random forest predicts the group well from the other columns, and badly from the codes:

    >>> auc = fair.audit(X).loc[("5", "forest", "auc")]
    >>> bool(auc["rows"] > 0.9 and auc["code"] < 0.75)
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

    def _read_targets(
        self, y: Any, weight: Floats, learned: dict[str, Any], is_part: bool = False
    ) -> Targets | None:
        if y is None:
            return None
        y, weight = targets_of_positive_weight(y, weight, self)
        known = learned.get("y_classes_") if is_part else None
        family, targets = read_classes_or_numbers(y, weight, known, is_part)
        return targets and replace(targets, loss=Head(family, self.label_weight, 1.0))

    def partial_fit(
        self,
        X: MatrixLike,
        y: MatrixLike | None = None,
        sample_weight: MatrixLike | None = None,
        X_corrupted: MatrixLike | None = None,
    ) -> Self:
        """Train on new rows, beside a sample of the rows seen before.

        `Autoencoder.partial_fit` has the details.

        Parameters
        ----------
        y : array-like of shape (n_samples,), default=None
            Targets that the codes should predict, as in `fit`. The first call with targets must
            contain at least two different ones. It determines whether they are numbers or classes,
            and which classes there are. With None, the call trains without targets.

        Raises
        ------
        ValueError
            As in `Autoencoder.partial_fit`, or if the targets are not of the kind of the first
            ones.
        """
        return self._partial_fit(X, y, sample_weight, X_corrupted, is_part=True)

    def audit(self, X: MatrixLike, y: MatrixLike | None = None) -> pd.DataFrame:
        """Measure how well the sensitive columns and `y` can be predicted from the codes.

        Two classifiers, the probes, predict each of these targets by five-fold cross-validation:
        the class of a row is predicted by a probe that was trained on the other four fifths of the
        rows. The folds and the probes have a fixed seed, so that the report is not random. The
        probe "forest" is a random forest, which can use dependencies of any form. The probe
        "linear" is logistic regression. If only the linear probe fails, this is no evidence of
        privacy, because the same codes may reveal everything to a forest.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows with their sensitive columns, preferably rows that were not used for training.
        y : array-like of shape (n_samples,), default=None
            Classes that the codes should predict. -1 marks an unknown one, unless -1 and 1 are the
            only classes. Rows of unknown class are ignored in the measures for `y`.

        Returns
        -------
        report : DataFrame
            Values of the measures. The index has the levels "target", "probe" and "measure". The
            targets are the names of the sensitive columns, or their indices as strings if `X` has
            no names, and "y" ("y (target)" if a sensitive column is named "y"). A numerical
            sensitive column is split into two classes at its median.

            The column "nothing" is for predictions without data: the share of the largest class as
            accuracy, an AUC of 0.5 and a parity gap of 0. The column "rows" is for predictions from
            the columns of `X` that are not sensitive. The column "code" is for predictions from the
            output of `transform`.

            The measures are "accuracy" and "auc", the area under the ROC curve (AUC). For more than
            two classes, it is the mean AUC of one class against the rest. For `y`, there is also
            "parity gap, <column>" for each sensitive column: the largest difference between the
            groups of this column in how often a class of `y` is predicted, from 0 to 1.

        Raises
        ------
        ValueError
            If the model has no sensitive columns, if `X` is invalid or contains sensitive
            categories that training has not seen, if `y` has another length than `X` or does not
            contain classes, or if a target has a single class or a class with fewer than five rows.
        TypeError
            If `X` is sparse, or if the values of a sensitive column are not all strings, all
            numbers or all booleans.
        """
        fitted = self._read_fitted()
        schema = fitted.schema
        if not schema.conditions:
            raise ValueError("audit needs sensitive columns: set sensitive and fit again.")
        rows = schema.read(X)
        pairs = zip(schema.conditions, rows.conditions.T, strict=True)
        sensitive = {column.name: column.classes(cells) for column, cells in pairs}
        tables = {"rows": encoded_rows(rows, fitted), "code": codes(rows, fitted)}
        return audit(tables, sensitive, y)
