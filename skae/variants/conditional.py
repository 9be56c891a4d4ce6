"""The conditional variational autoencoder: some columns are given, the others modelled."""

from typing import ClassVar

from skae.nn.corruption import Corruption
from skae.table.schema import ColumnKey
from skae.variants.conditioned import COLUMN_KEY, ConditionedAutoencoder
from skae.variants.variational import VariationalAutoencoder


class ConditionalVariationalAutoencoder(VariationalAutoencoder, ConditionedAutoencoder):
    """Variational autoencoder of rows under a condition: columns that are given, not modelled.

    Encoder and decoder see the condition, so that the code need not tell it [1]_: it says how a
    row differs from others of its condition. `sample` draws rows of a condition; `translate` keeps
    a row's code and changes its condition, "the same handwriting, another digit"; `score_samples`
    is the log-density of a row given its condition, so that the condition under which a row is
    most likely is a Bayes classifier's answer. Training starts at probabilistic PCA of what a
    linear map of the condition leaves of rows.

    Columns of texts, categories or booleans, and of at most 20 different whole numbers, are
    categorical and one-hot encoded inside; others are numbers. Rows that come back have all
    columns of `X`, the condition filled in.

    Parameters
    ----------
    n_components : int, float or "auto", default="auto"
        Size of the code. A float in (0, 1) takes as many components as PCA needs for that share
        of the variance; "auto" is the rounded square root of the number of modelled columns.

    condition : str, int, array-like of these, slice, mask, callable or None, default=None
        The columns that are given, as `sklearn.compose.ColumnTransformer` takes them: names in a
        data frame, numbers, a slice or a mask of them, or a callable of the table that returns
        such, for instance `sklearn.compose.make_column_selector`. None models every column.

    corruption : {"gaussian", "masking", "salt_and_pepper", "swap", "grayscale", "downsampling", \
"block"}, callable or None, default="gaussian"
        How to corrupt the modelled cells that the encoder sees while training [2]_; conditions are
        not corrupted. Without it, few rows of a condition get codes so precise that draws fall
        between them, and look like another condition's rows: of drawn digits, the worst class is
        recognised in 95 % with the default and in 77 % without. None restores rows better.

    corruption_level : float, default=0.7
        Share of cells that a named corruption changes; for "gaussian", the noise's standard
        deviation in those of the columns; for "block", its side as a share of the image's shorter
        one.

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
