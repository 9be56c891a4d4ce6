"""The conditional variational autoencoder."""

from typing import ClassVar

from skae.nn.corruption import Corruption
from skae.table.schema import ColumnKey
from skae.variants.conditioned import COLUMN_KEY, ConditionedAutoencoder
from skae.variants.variational import VariationalAutoencoder


class ConditionalVariationalAutoencoder(VariationalAutoencoder, ConditionedAutoencoder):
    """Variational autoencoder of some columns given others, the condition.

    Encoder and decoder receive the condition, so that the code need not contain it [1]_. The code
    describes how a row differs from others with the same condition. `sample` draws rows with a
    condition. `translate` keeps the code of a row and changes its condition, for example to another
    digit in the same handwriting. `score_samples` is the log-density of the other columns given the
    condition, so that the condition with the largest density is the prediction of a Bayes
    classifier. Training starts at probabilistic PCA of the residuals of a linear regression on the
    condition.

    Columns of strings, categories or booleans, and columns of at most 20 distinct integers, are
    categorical and are one-hot encoded; others are numerical. Returned rows have all columns of
    `X`, including the condition.

    Parameters
    ----------
    n_components : int, float or "auto", default="auto"
        Number of components of the code. A float in (0, 1) selects as many components as PCA needs
        for that share of the variance. "auto" is the rounded square root of the number of modelled
        columns.

    condition : str, int, array-like of these, slice, mask, callable or None, default=None
        Columns of the condition, selected as in `sklearn.compose.ColumnTransformer`: by names in a
        data frame, by indices, by a slice or a mask, or by a callable that receives the table and
        returns one of these, for example `sklearn.compose.make_column_selector`. None models every
        column.

    corruption : {"gaussian", "masking", "salt_and_pepper", "swap", "grayscale", "downsampling", \
"block"}, callable or None, default="gaussian"
        Corruption of the modelled cells that the encoder receives during training [2]_; conditions
        are not corrupted. Without corruption, the codes of a condition with few rows become so
        precise that draws fall between them and resemble rows of another condition. A classifier
        recognizes 95 % of the digits drawn for the worst class with the default, and 77 % without
        corruption. None gives a smaller reconstruction error.

    corruption_level : float, default=0.7
        Share of cells that a named corruption changes. For "gaussian", it is the standard deviation
        of the noise in units of the column's; for "block", the side of the square as a share of the
        image's shorter side.

    Notes
    -----
    Most users set only `condition`, `n_components`, `max_epochs` and `random_state`. Set
    `corruption=None` as well if reconstructions matter more than drawn rows.

    References
    ----------
    .. [1] K. Sohn, H. Lee and X. Yan, "Learning structured output representation using deep
       conditional generative models", NeurIPS 2015.
    .. [2] D. J. Im, S. Ahn, R. Memisevic and Y. Bengio, "Denoising criterion for variational
       auto-encoding framework", AAAI 2017.
    .. [3] I. Higgins et al., "beta-VAE: learning basic visual concepts with a constrained
       variational framework", ICLR 2017.
    .. [4] Y. Burda, R. Grosse and R. Salakhutdinov, "Importance weighted autoencoders", ICLR 2016.
    .. [5] G. Tucker, D. Lawson, S. Gu and C. J. Maddison, "Doubly reparameterized gradient
       estimators for Monte Carlo objectives", ICLR 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import ConditionalVariationalAutoencoder
    >>> X = load_digits(as_frame=True).frame
    >>> model = ConditionalVariationalAutoencoder(condition="target", max_epochs=20, random_state=0)
    >>> model.fit(X[:1200]).transform(X[1200:]).shape
    (597, 8)
    >>> sevens = model.sample(3, condition=7, random_state=0)
    >>> sevens.shape, sevens[:, -1].tolist()
    ((3, 65), [7.0, 7.0, 7.0])
    >>> model.translate(X[:1], condition=3)[:, -1].item()
    3.0
    """

    condition: ColumnKey = None
    corruption: str | Corruption | None = "gaussian"
    corruption_level: float = 0.7

    _condition_parameter = "condition"
    _must_be_saved = (*VariationalAutoencoder._must_be_saved, "condition")

    _parameter_constraints: ClassVar = {
        "condition": COLUMN_KEY,
    }
