"""Warnings about a fit, which the public method issues when the fit is complete."""

from collections.abc import Callable, Sequence

import torch
from sklearn.exceptions import ConvergenceWarning

from skae.nn.batch import Batch
from skae.nn.corruption import FOR_IMAGES
from skae.nn.likelihoods.base import Likelihood
from skae.nn.network import Network
from skae.nn.pca import column_moments
from skae.parameters import short_repr
from skae.table.columns import Column
from skae.table.seen import ColumnMoments
from skae.training.batches import Batches
from skae.training.epochs import Outcome
from skae.training.plan import Plan

Message = tuple[str, type[Warning]]
"""Text and category of a warning."""

NEGLIGIBLE_NOISE = 1e-6
"""Noise variance, relative to the mean variance of the columns, below which `fit` warns if the
training rows do not vary along all axes."""

MANY_STEPS = 100
"""Number of steps from which training is expected to improve the initial network."""

ROUNDING = 1e-4
"""Relative difference of objectives that rounding errors may cause."""

MANY_LEVELS, LEVELS_PER_ROW = 20, 0.5
"""Largest number of levels of a column, and its largest share of the number of rows, without a
warning."""

IMAGE_CHANNELS = (1, 3, 4)
"""Numbers of channels of usual images: gray, RGB and RGBA."""


def about_shape(architecture: object, corruption: object, shape: tuple[int, ...]) -> list[Message]:
    """Return a list with a warning if the channels of images seem to be the last axis."""
    names = {name for name in (architecture, corruption) if type(name) is str}
    if not {"conv", *FOR_IMAGES} & names or len(shape) != 3:
        return []
    channels, height, width = shape
    if width not in IMAGE_CHANNELS or min(channels, height) <= width:
        return []
    text = (
        f"feature_shape={shape} describes images of {channels} channels, {height} rows and {width} "
        "columns. If channels are the last axis of the images, set feature_shape="
        f"{(width, channels, height)} and pass np.moveaxis(X.reshape(-1, {channels}, {height}, "
        f"{width}), -1, 1)."
    )
    return [(text, UserWarning)]


def about_size(network: Network, is_corrupted: bool) -> list[Message]:
    """Return a list with a warning if codes are so long that they can copy rows.

    `is_corrupted` is whether the encoder receives corrupted rows in training.
    """
    k, d = network.latent.n_components, network.inputs.n_encoded
    if k <= d or is_corrupted or network.latent.restricts_codes:
        return []
    text = (
        f"n_components={k} exceeds the number of columns, {d}, so that codes can copy the rows. "
        "Lower n_components, or set corruption, with which longer codes are useful."
    )
    return [(text, UserWarning)]


def about_levels(columns: Sequence[Column], n_rows: int) -> list[Message]:
    """Return a list with a warning if most categories of a column occur once in `n_rows` rows."""
    found = [c.name for c in columns if c.n_levels > max(MANY_LEVELS, LEVELS_PER_ROW * n_rows)]
    if not found:
        return []
    text = (
        f"Most categories of column {short_repr(found[0])} occur once. If it identifies rows, drop "
        "it. Otherwise, set categories=Categories(max_categories=...), so that infrequent "
        "categories share a level."
    )
    return [(text, UserWarning)]


def about_training(
    network: Network, plan: Plan, train: Batches, outcome: Outcome, start_loss: float
) -> list[Message]:
    """Return a list with a warning if training has diverged, or if it has learned nothing.

    Parameters
    ----------
    network : Network
        The trained network.
    plan : Plan
        Plan of the training.
    train : Batches
        Training rows.
    outcome : Outcome
        Result of the training.
    start_loss : float
        Objective on the training rows before training, in nats per row.
    """
    # A diverged training has a larger objective than before any training and than the baseline of
    # the likelihood. The margin, one nat per cell, excludes differences by chance, and those of
    # rounding.
    limit = max(start_loss, network.likelihood.baseline().item())
    limit += network.inputs.n_encoded + ROUNDING * abs(limit)
    if outcome.loss > limit:
        text = (
            f"Training diverged: the objective rose from {start_loss:.4g} to {outcome.loss:.4g} "
            f"nats per row. Lower learning_rate (now {plan.learning_rate})."
        )
    elif outcome.epoch or not (plan.from_start and _can_learn(network, plan, train)):
        return []
    else:
        start = "random weights" if network.encoder.skip is None else "PCA"
        text = f"Training did not improve on the initial network, {start}, which was kept. "
        # The network itself scales the columns of tables of several kinds, and categories have no
        # scale.
        if network.inputs.has_own_scales:
            text += "Change n_components or learning_rate."
        else:
            text += (
                "If the standard deviations of the columns differ much, scale the columns, for "
                "example with StandardScaler. Otherwise, change n_components or learning_rate."
            )
    return [(text, ConvergenceWarning)]


def _can_learn(network: Network, plan: Plan, train: Batches) -> bool:
    """Return whether a training is expected to improve a network.

    A linear network starts at its solution, as does that of a single distinct row.
    """
    n_steps = plan.budget.max_epochs * len(train.batch_sizes(plan.budget.batch_size))
    is_linear = network.encoder.residual is None and network.decoder.residual is None
    is_short = network.latent.n_components < network.inputs.n_encoded
    return n_steps >= MANY_STEPS and len(train) > 1 and is_short and not is_linear


def about_distance(
    before: ColumnMoments, new: ColumnMoments, label: Callable[[int], str]
) -> list[Message]:
    """Return a list with a warning if rows with moments `new` are far from those seen `before`.

    `label` returns the name of a column.
    """
    found = before.farthest(new)
    if found is None:
        return []
    text = (
        f"The new rows are far from those seen before: the mean of column {label(found[0])} "
        f"differs by {found[1]:.3g} standard deviations. Check the units of the new rows. If they "
        "come from another distribution, the model describes them poorly until many of them were "
        "seen."
    )
    return [(text, UserWarning)]


def about_codes(network: Network, batch: Batch) -> list[Message]:
    """Return a list with a warning if the codes of a sample of rows are degenerate."""
    if not _variances(network, batch).any():
        return []
    with torch.no_grad():
        text = network.latent.warning(network.encode(batch), batch.weight)
    return [] if text is None else [(text, ConvergenceWarning)]


def about_noise(
    network: Network, likelihood: Likelihood, batch: Batch, n_rows: int, is_validated: bool
) -> list[Message]:
    """Return a list with a warning if the noise variance is arbitrary.

    Parameters
    ----------
    network : Network
        The trained network.
    likelihood : Likelihood
        Likelihood of the fitted density.
    batch : Batch
        Sample of the rows.
    n_rows : int
        Number of distinct training rows.
    is_validated : bool
        Whether validation rows have estimated or corrected the noise variance.
    """
    if network.likelihood.is_known or is_validated:
        return []
    variance = _variances(network, batch)
    if not variance.any():
        return []
    k, d = network.latent.n_components, len(variance)
    rank = min(n_rows - 1, int((variance > 0).sum()))
    noise = likelihood.noise_variance
    # A trained noise variance falls as long as training lasts.
    is_arbitrary = network.likelihood.is_trained
    if not network.inputs.has_own_scales:
        is_arbitrary |= bool((noise < NEGLIGIBLE_NOISE * variance.mean().to(noise)).all())
    if not is_arbitrary or rank >= min(d, k + 1):
        return []
    text = (
        f"The noise variance cannot be estimated: codes with n_components={k} reproduce "
        f"the training rows, which vary along at most {rank} of {d} axes. score_samples is "
        "extremely low for rows that vary along other axes. Reduce n_components, hold out "
        "more rows (early_stopping='auto' and validation_fraction), or set noise to a number."
    )
    return [(text, UserWarning)]


def _variances(network: Network, batch: Batch) -> torch.Tensor:
    """Compute the variances (n_modelled,) of the modelled columns in a sample of rows."""
    # Some devices do not support float64.
    x, weight = network.inputs.modelled(batch).x.nan_to_num().cpu().double(), batch.weight
    return column_moments(x, weight.cpu().double()).variance
