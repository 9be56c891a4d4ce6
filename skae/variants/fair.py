"""The fair autoencoder: a code that keeps what is useful and hides sensitive columns."""

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
from skae.nn.adversaries import PANEL, Adversaries
from skae.nn.draws import Draws, KeyedDraws
from skae.nn.latent import Code, Encode, Latent
from skae.state import Known
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

LOOKS = 4
"""Codes of each row that judges see at each step."""

WARM_UP = 0.25
"""Share of training in which what judges cost rises."""


class Private(Variational):
    """A noisy code that pays for what judges, who learn with it, tell of given cells from it.

    Parameters
    ----------
    n_components : int
    price : float
        What a nat that a judge tells costs.
    widths : sequence of int
        Cells of each given column: its categories, or 1 where it holds numbers.
    """

    # A trained noise would make codes ever more precise, and precise codes hide nothing.
    learns_noise = False
    # Judges change while they learn: the codes that they know least would look best.
    ranks_epochs = False

    def __init__(self, n_components: int, penalty_weight: float, widths: Sequence[int]) -> None:
        super().__init__(n_components, False, 1.0, 0.0, 1)
        self.penalty_weight, self.panel = penalty_weight, Adversaries(n_components, widths)

    def start_from(self, h: Tensor, weight: Tensor, generator: torch.Generator) -> None:
        self.panel.reset(generator)

    def inference_draws(self, x: Tensor) -> Draws:
        # The noise hides: outside training it belongs to the row.
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
        z = self.propose(code.h, LOOKS, draws)[0]
        hidden = self.panel(z, code.conditions, weight, learns=False)
        lesson = self.panel(z.detach(), code.conditions, weight, learns=True)
        lesson = PANEL * (weight @ lesson) / weight.sum()
        rise = (draws.schedule() / WARM_UP).clamp_max(1.0)
        # The judges learn from their lesson, which is no part of what the codes cost.
        return penalty - self.penalty_weight * rise * hidden + (lesson - lesson.detach())


class FairAutoencoder(ConditionedAutoencoder):
    """Autoencoder whose code keeps what is useful in rows and hides sensitive columns.

    The encoder never sees the sensitive columns, the decoder does, so that rows can be restored
    from codes that say nothing of them [1]_. What other columns tell of them is hidden by two
    means at once: codes are noisy, and while they train, a panel of small networks, the judges,
    learns to tell the sensitive columns from them and codes pay for every nat that it tells [2]_.

    `transform` gives the noisy code, which is the one that was trained to hide; its mean would
    give away what the noise conceals. The noise belongs to the row: it is made from a hash of the
    columns that are not sensitive, so that a row has the same code at each call and in any table,
    and a change of the sensitive columns changes no code.

    What is hidden, and at which price, `audit` reports. Nothing is promised: probes that are
    better, or know other things of the same rows, may tell more. A `y` given to `fit` makes codes
    tell it as well as they can without giving away more: use it where the code has one purpose.

    Parameters
    ----------
    n_components : int, float or "auto", default="auto"
        Size of the code. A float in (0, 1) takes as many components as PCA needs for that share
        of the variance; "auto" is twice the rounded square root of the number of columns that are
        not sensitive: noise takes its share of the code.

    sensitive : str, int, array-like of these, slice, mask, callable or None, default=None
        The columns to hide, as `sklearn.compose.ColumnTransformer` takes them: names in a data
        frame, numbers, a slice or a mask of them, or a callable of the table that returns such.
        Texts, categories, booleans and at most 20 different whole numbers are categorical, other
        columns numbers. None hides nothing: the model is a variational autoencoder then.

    leak_weight : float, default=1.0
        Price of each nat that judges tell of the sensitive columns, in nats for each of the other
        columns, whose errors it is weighed against. Larger values hide more and keep less, up to
        about 3: codes whose judges cannot keep up hide less. It rises over the first quarter of
        training.

    label_weight : float, default=10.0
        Where `y` is given, what a nat of it counts against a nat of reconstruction.

    See Also
    --------
    ConditionalVariationalAutoencoder : Its encoder sees what is given, too.

    Notes
    -----
    The objective is the evidence lower bound, with the Gaussian noise of rows held at the mean
    column variance, so that codes stay noisy (afterwards it is estimated, for the density), plus
    `leak_weight` times what the judges tell. There are four judges, with two layers of 64 units
    each, which see four codes of each row at each step and move three times as fast as the code.
    No held-out row tells which epoch hides best while the judges still learn: the last one is kept.

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
    _indispensable = (*BaseAutoencoder._indispensable, "sensitive")
    _encoder_sees_conditions = False

    _density = Importance

    _parameter_constraints: ClassVar = {
        "sensitive": COLUMN_KEY,
        "leak_weight": [Interval(Real, 0, None, closed="left")],
        "label_weight": [Interval(Real, 0, None, closed="neither")],
    }

    def _auto_components(self, n_features: int) -> int:
        return 2 * super()._auto_components(n_features)

    def _make_latent(self, n_components: int, known: Known) -> Latent:
        schema = known.schema
        if not schema.conditions:
            return Variational(n_components, False, 1.0, 0.1, 1)
        widths = [max(1, n_levels) for n_levels in schema.n_levels]
        return Private(n_components, self.leak_weight * len(schema.modelled), widths)

    def _read_targets(self, y: Any, weight: Floats, learned: dict[str, Any]) -> Targets | None:
        if y is None:
            return None
        y, weight = targets_of_positive_weight(y, weight, self)
        y = np.asarray(y)
        # Equal targets tell nothing of rows, as none do.
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
        """Train the autoencoder, then estimate its density.

        A fit that fails or is interrupted leaves an earlier model as it was.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows, their sensitive columns among them.
        y : array-like of shape (n_samples,), default=None
            What codes are to tell: classes, -1 where not known, or numbers, NaN where not known.
            Where all are equal, it is as without.

        Raises
        ------
        ValueError
            Where X or y cannot be used or training breaks down.
        TypeError
            Where X is sparse, or a sensitive column holds values of several kinds.
        """
        return super().fit(X, y, sample_weight, X_corrupted)

    def audit(self, X: MatrixLike, y: MatrixLike | None = None) -> pd.DataFrame:
        """What probes tell of the sensitive columns from codes, and what else codes are good for.

        Probes are trained on four fifths of the rows and asked about the others, five times. A
        random forest ("forest") sees anything that is there to be seen; logistic regression
        ("linear") sees what a linear map tells, which alone says nothing of privacy: codes can
        look fair to it and give everything away to a forest.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows with their sensitive columns, best those that training has not seen.
        y : array-like of shape (n_samples,), default=None
            Classes that codes should tell, -1 where not known.

        Returns
        -------
        report : DataFrame
            A row for each of (target, probe, measure); columns are "nothing", what one can tell
            without looking, "rows", what the columns that are not sensitive tell, and "code", what
            `transform`'s output tells. Measures are "accuracy" and "auc", the area under the ROC
            curve (of several classes, the mean of one against the rest); for `y` also
            "parity gap, <column>", the largest difference between that column's groups in how
            often a class is predicted. A sensitive column of numbers is split at its median.

        Raises
        ------
        ValueError
            Where `sensitive` is None, or a target has a single class or classes of less than five
            rows.
        """
        fitted = self._read_fitted()
        schema = fitted.schema
        if not schema.conditions:
            raise ValueError("sensitive=None: there is nothing to audit. Name columns and fit.")
        rows = schema.read(X)
        pairs = zip(schema.conditions, rows.conditions.T, strict=True)
        sensitive = {column.name: column.classes(cells) for column, cells in pairs}
        return audit({"rows": rows.modelled, "code": codes(rows, fitted)}, sensitive, y)
