"""Initial networks of a fit: new ones, copies of fitted ones, and those restored from files."""

import copy
from collections.abc import Mapping
from numbers import Integral
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from skae._compat.sklearn import infer_dimension, validate_parameters
from skae.files import matches_type
from skae.nn.bodies.architectures import WIDTHS, make_architecture
from skae.nn.bodies.body import make_bodies
from skae.nn.draws import derive_seed
from skae.nn.encoding import OneHot
from skae.nn.growth import grow
from skae.nn.inputs import Inputs
from skae.nn.likelihoods import LIKELIHOODS, make_blocks, make_likelihood
from skae.nn.likelihoods.base import Likelihood
from skae.nn.network import Network
from skae.nn.pca import (
    DistinctRows,
    LazyRows,
    Moments,
    column_moments,
    components_for_share,
    filled_rows,
    own_scales,
    principal_axes,
)
from skae.nn.rotation import can_rotate
from skae.parameters import short_repr
from skae.state import Fitted, NetworkMismatchError, TableInfo
from skae.table.blocks import Modelling
from skae.table.columns import Support
from skae.table.components import Components
from skae.table.conditions import DistinctConditions, SeenConditions
from skae.table.rows import Rows, max_abs_values
from skae.table.schema import Schema
from skae.table.seen import Seen
from skae.table.sequences import RowShape
from skae.training.loop import Net, check_well_formed, to_tensors
from skae.training.precision import (
    check_noise,
    check_overflow,
    check_scale,
    choose_dtype,
    required_dtype,
)
from skae.training.split import Split
from skae.training.tensors import as_tensor, make_batch
from skae.training.threads import choose_device


def row_shape(estimator: BaseEstimator) -> RowShape:
    """Return the shape of the rows that the parameters of an autoencoder describe."""
    return RowShape(estimator.feature_shape, estimator.architecture == "recurrent")


def modelling(estimator: BaseEstimator) -> Modelling:
    """Return how the parameters of an autoencoder model columns.

    Raises InvalidParameterError if those of its `categories` are invalid.
    """
    supports = {name: Support(name, *kind.support) for name, kind in LIKELIHOODS.items()}
    if estimator.categories is not None:
        estimator.categories.check()
    reads_all = estimator.architecture == "mlp" and estimator.feature_shape is None
    return Modelling(estimator.likelihood, supports, estimator.categories, reads_all)


def has_same_likelihoods(estimator: BaseEstimator, schema: Schema) -> bool:
    """Return whether the parameters select the likelihoods that the columns of a schema have.

    A selection of columns can only be compared if it is unchanged, since it depends on the table.
    """
    wanted, names = estimator.likelihood, schema.likelihoods
    if wanted == "auto":
        return names == schema.usual_likelihoods
    return not isinstance(wanted, str) or set(names) == {wanted}


def build_network(
    estimator: BaseEstimator, schema: Schema, learned: dict[str, Any], n_components: int
) -> Network:
    """Build the network that the parameters of an autoencoder describe, without initializing it.

    Raises ValueError if a combination of parameters is not supported.
    """
    d, n_conditions = len(schema.modelled), len(schema.conditions)
    is_recurrent = estimator.architecture == "recurrent"
    latent = estimator._make_latent(n_components, TableInfo(schema, learned))
    likelihood = _make_likelihood(estimator, schema, latent.learns_noise)
    inputs = Inputs(
        d,
        schema.n_levels,
        estimator._encoder_uses_conditions,
        schema.modelled_levels,
        # A decoder with tied weights has no weights for the bits of missing cells.
        [] if is_recurrent or estimator.tied_weights else schema.missing.tolist(),
        is_recurrent,
    )
    architecture = make_architecture(
        estimator.architecture,
        d,
        inputs.n_outputs,
        likelihood.n_outputs,
        None
        if estimator.feature_shape is None
        else RowShape(estimator.feature_shape, False).full(d),
        estimator.hidden_layer_sizes,
        estimator._narrow_widths,
        estimator.activation,
        estimator.dropout,
    )
    for name, is_supported in (
        ("tied_weights", architecture.can_tie),
        ("layerwise_epochs", architecture.has_layers),
    ):
        if getattr(estimator, name) and not is_supported:
            raise ValueError(
                f"{name}={getattr(estimator, name)} is not supported by "
                f"architecture={short_repr(estimator.architecture)}. Leave {name} at its default."
            )
    if n_conditions and estimator.tied_weights:
        raise ValueError(
            "tied_weights=True is not supported with conditions, which the decoder receives beside "
            "the code. Leave tied_weights at its default."
        )
    if estimator.tied_weights and schema.is_mixed:
        raise ValueError(
            "tied_weights=True is not supported for tables whose columns have several kinds. Leave "
            "tied_weights at its default."
        )
    has_skip = architecture.likes_skip if estimator.linear_skip == "auto" else estimator.linear_skip
    encoder, decoder = make_bodies(
        architecture,
        latent.n_inputs,
        latent.n_outputs + inputs.n_conditions,
        bool(has_skip) and latent.is_linear,
        estimator.tied_weights,
    )
    return Network(inputs, encoder, decoder, latent, likelihood, estimator.trim)


def _make_likelihood(estimator: BaseEstimator, schema: Schema, trains_noise: bool) -> Likelihood:
    """Create the likelihood of the modelled columns of a table."""
    names = schema.likelihoods
    if schema.modelled_levels:
        return make_blocks(names, schema.modelled_levels, estimator.noise, trains_noise)
    return make_likelihood(names[0], len(names), estimator.noise, trains_noise)


def keep_auto_widths(estimator: BaseEstimator, arrays: Mapping[str, Any]) -> None:
    """Let `hidden_layer_sizes="auto"` mean what it meant when a network was fitted.

    In earlier versions, narrow tables had the same widths as others. `estimator` is a copy that is
    used for one network, and `arrays` are the weights of that network by name.
    """
    first = arrays.get("encoder.residual.layers.0.weight")
    if first is not None and len(first) == WIDTHS["mlp"][0]:
        estimator._narrow_widths = WIDTHS["mlp"]


class _DistinctTable(NamedTuple):
    """Distinct rows of a table, from which a network is initialized.

    Attributes
    ----------
    x, conditions : LazyRows
        Encoded modelled columns, whose missing cells are filled with means, and columns of
        conditions.
    weight : Tensor of shape (n_distinct,)
        Weights of the rows.
    moments : Moments
        Moments of the observed cells of the encoded modelled columns.
    observed : LazyRows or None
        Which encoded cells are observed. None if no cell is missing.
    """

    x: LazyRows
    conditions: LazyRows
    weight: Tensor
    moments: Moments
    observed: LazyRows | None

    @classmethod
    def from_rows(cls, rows: Rows, split: Split) -> Self:
        """Read the distinct rows of a split, including its validation rows."""
        cells, conditions = as_tensor(rows.values).tensor_split([rows.n_modelled], dim=1)
        numbers, weight = torch.from_numpy(split.index), as_tensor(split.weight)
        table, encoding = DistinctRows(cells, numbers), OneHot(rows.modelled_levels)
        x = LazyRows(lambda block: encoding(table[block]), (len(numbers), encoding.n_outputs))
        x = table if not rows.modelled_levels else x
        observed = None
        if rows.may_have_missing and np.isnan(rows.modelled).any():
            observed = LazyRows(lambda block: encoding.spread(~table[block].isnan()), x.shape)
            x, moments = filled_rows(x, observed, weight)
        else:
            moments = column_moments(x, weight)
        if rows.modelled_levels:
            moments = moments._replace(scale=own_scales(moments, encoding.is_category))
        return cls(x, DistinctRows(conditions, numbers), weight, moments, observed)


def new_net(
    estimator: BaseEstimator,
    schema: Schema,
    rows: Rows,
    split: Split,
    learned: dict[str, Any],
    smaller: Network | None,
    seed: int,
) -> Net:
    """Build a network and initialize it from the data.

    Parameters
    ----------
    estimator : BaseAutoencoder
        Estimator whose parameters and hooks are read.
    schema : Schema
        How the table is read and written.
    rows : Rows
        Rows of the table, including the validation rows.
    split : Split
        The distinct rows. All of them, except validation rows that the user has chosen, determine
        the size and the dtype of the network. The training rows alone initialize it.
    learned : dict
        What was learned from targets, such as their classes.
    smaller : Network or None
        Trained network with fewer components, whose weights are copied to the new network. None
        initializes all weights from the rows.
    seed : int
        Seed of all random numbers of the initialization and of the training.

    Returns
    -------
    net : Net
        Net that contains the initialized network.

    Raises
    ------
    ValueError
        If the rows cannot be represented in the dtype of the network, if a combination of
        parameters is not supported, or if the network does not fit into memory.
    """
    device = choose_device(estimator.device)
    largest = max_abs_values(rows.values)
    check_overflow(largest, "X", schema, torch.float64)
    # Validation rows that the user has chosen never become training rows.
    sizing = split.training_part() if split.is_given else split
    d, table = rows.n_modelled, _DistinctTable.from_rows(rows, sizing)
    dtype = choose_dtype(
        estimator.precision, rows.values.dtype, len(sizing.index), table.moments, largest, device
    )
    check_overflow(largest, "X", schema, dtype)
    check_scale(table.moments, schema, dtype)
    check_noise(estimator.noise, table.moments.scale, dtype)
    if smaller is not None:
        keep_auto_widths(estimator, smaller.state_dict())
    generator = torch.Generator().manual_seed(seed)
    k = _choose_components(estimator, table, generator)
    try:
        network = build_network(estimator, schema, learned, k).to(dtype)
    except (RuntimeError, TypeError, OverflowError) as error:
        raise ValueError(
            f"A network for {d} columns with n_components={k} and "
            f"hidden_layer_sizes={estimator.hidden_layer_sizes} does not fit into memory."
        ) from error
    # Only new networks are checked, because files may contain tied ones of earlier versions.
    if estimator.tied_weights and not network.latent.can_tie:
        raise ValueError(
            f"tied_weights=True is not supported by {type(estimator).__name__}, whose decoder does "
            "not receive outputs of its encoder. Leave tied_weights at its default."
        )
    _check_whiten(estimator, network)
    if split.held_out.any():
        split = split.training_part()
        table = _DistinctTable.from_rows(rows, split)
    parts = table.x, table.weight, table.moments, generator, table.conditions
    network.start(*parts, table.observed)
    chosen = split.index[split.representatives]
    batch = make_batch(rows.take(chosen), network, split.representative_weight)
    if smaller is not None:
        grow(network, copy.deepcopy(smaller).to(network.like), batch, generator)
    network.start_latent(batch, generator)
    if device.type != "cpu":
        generator = torch.Generator(device).manual_seed(derive_seed(seed, "training"))
    return Net.from_module(network.to(device), generator)


def _check_whiten(
    estimator: BaseEstimator, network: Network, components: Components | None = None
) -> None:
    """Raise ValueError if codes cannot be whitened, because their components are not ordered.

    `components` are those of the model from which training resumes.
    """
    if not estimator.whiten:
        return
    if not can_rotate(network):
        raise ValueError(
            f"whiten=True is not supported by this {type(estimator).__name__}, whose components "
            "are not ordered: its codes have a prior or a penalty, its weights are tied, or a "
            "network is a module of the user. Set whiten=False."
        )
    if components is not None and not components.is_ordered:
        raise ValueError(
            "whiten=True is not supported if training resumes from a model whose components are "
            "not ordered, as after partial_fit. Set whiten=False, or call fit with "
            "warm_start=False."
        )


def _choose_components(
    estimator: BaseEstimator, table: _DistinctTable, generator: torch.Generator
) -> int:
    """Return the number of components that the parameter `n_components` means for a table."""
    n, d = table.x.shape
    wanted = estimator.n_components
    if wanted is None:
        return min(n, d)
    if wanted == "auto":
        return int(estimator._auto_components(d))
    if isinstance(wanted, Integral):
        return int(wanted)
    parts = table.x, table.weight, table.moments
    if wanted != "mle":
        return components_for_share(*parts, float(wanted), generator)
    if table.moments.scale.ndim:
        raise ValueError(
            "n_components='mle' is not supported for tables whose columns have several kinds. Set "
            "n_components to a number or to a share of the variance."
        )
    total = float(table.weight.sum())
    if total < d:
        raise ValueError(
            f"n_components='mle' requires at least as many rows as columns, got {total:g} rows and "
            f"{d} columns. Set n_components to a number."
        )
    found = principal_axes(*parts, d, generator)[0] * table.moments.scale**2
    if d == 1 or not len(found):
        return 1
    variances = np.zeros(d)
    variances[: len(found)] = found.cpu().numpy() * total / max(total - 1, 1.0)
    # The estimate does not depend on the unit, but it treats tiny variances as 0.
    return infer_dimension(variances / min(1.0, variances[0]), total)


def components_of_resumed(estimator: BaseEstimator, resume: Fitted) -> int | None:
    """Return the number of components that the parameters describe, or None if it is unknown.

    An unchanged `n_components` describes that of the fitted network. A share of the variance that
    has changed would have to be compared with PCA of the rows of the first fit, which are unknown.
    """
    n_components = estimator.n_components
    if n_components == resume.parameters.get("n_components"):
        return resume.network.latent.n_components
    if n_components == "auto":
        return int(estimator._auto_components(resume.network.inputs.n_encoded))
    return int(n_components) if isinstance(n_components, Integral) else None


def resumed_net(estimator: BaseEstimator, resume: Fitted) -> Net:
    """Copy a fitted net, with a network that is built from the current parameters.

    The network is moved to the device and converted to the dtype that the parameters require.
    Raises NetworkMismatchError if these parameters describe another network than the fitted one.
    """
    k, schema, fitted = resume.network.latent.n_components, resume.schema, resume.network
    device = choose_device(estimator.device)
    dtype = required_dtype(estimator.precision, device) or fitted.like.dtype
    check_noise(estimator.noise, fitted.inputs.scale, dtype)
    keep_auto_widths(estimator, fitted.state_dict())
    try:
        if components_of_resumed(estimator, resume) != k:
            raise RuntimeError(f"the fitted network has n_components={k}")
        if row_shape(estimator).full(len(schema.modelled)) != schema.feature_shape:
            raise RuntimeError(f"the fitted network is for rows of shape {schema.feature_shape}")
        if not has_same_likelihoods(estimator, schema):
            raise RuntimeError(f"the fitted network is for {schema.blocks!r}")
        network = build_network(estimator, schema, resume.learned, k).to(device, dtype)
        network.load_state_dict(fitted.state_dict())
    except RuntimeError as error:
        now = estimator.get_params(deep=False)
        changed = [k for k, v in resume.parameters.items() if repr(now[k]) != repr(v)]
        raise NetworkMismatchError(
            "The parameters describe a different network than the fitted one, so training cannot "
            f"resume from it. The changed parameters are: {', '.join(changed)}. Restore those that "
            "determine the network, or call fit with warm_start=False to start from scratch."
        ) from error
    _check_whiten(estimator, network, resume.components)
    # A known noise variance is a parameter, but it is also a part of the stored state.
    network.likelihood.fix_noise()
    net = Net.from_module(network, torch.Generator(device))
    net.load_arrays(resume.training)
    return net


def restore(estimator: BaseEstimator, tree: dict[str, Any]) -> Fitted:
    """Restore a fitted model from the result of `Fitted.tree`.

    Parameters
    ----------
    estimator : BaseAutoencoder
        Estimator with the parameters of the fit.
    tree : dict
        The stored model. It may come from a file that is damaged or forged.

    Returns
    -------
    fitted : Fitted
        The model, on the device that the estimator's `device` selects, or on the CPU if that device
        is not available.

    Raises
    ------
    ValueError
        If the tree does not describe a model of this estimator. If its contents are invalid in
        other ways, any of `skae.files.MALFORMED_ERRORS` may be raised.
    """
    tree = dict(tree)
    try:
        device = choose_device(estimator.device)
    except ValueError:
        device = torch.device("cpu")
    validate_parameters(estimator)
    if isinstance(tree["conditions"], DistinctConditions):
        tree["conditions"] = tree["conditions"].summary(tree["schema"].n_levels)
    if "seen" not in tree:  # Files of earlier versions contain the number of rows only.
        center, scale = (tree["module"][f"inputs.{name}"] for name in ("center", "scale"))
        tree["seen"] = Seen.of_units(tree.pop("rows_seen"), center, scale)
    _check_tree(estimator, tree)
    dtype = {"float32": torch.float32, "float64": torch.float64}[tree.pop("dtype")]
    module, k = tree.pop("module"), tree.pop("n_components")
    keep_auto_widths(estimator, module)
    parts = estimator, tree["schema"], tree["learned"], k
    # The time to build a network grows with the number of its layers, each of which has arrays.
    widths = estimator.hidden_layer_sizes
    if not isinstance(widths, str) and len(widths) > len(module):
        raise ValueError("the arrays do not match the network that the parameters describe")
    # The shapes of the stored arrays are checked on the meta device, before memory is allocated.
    with torch.device("meta"):
        outline = build_network(*parts).state_dict()
    shapes = {name: tuple(values.shape) for name, values in outline.items()}
    if shapes != {name: values.shape for name, values in module.items()}:
        raise ValueError("the arrays do not match the network that the parameters describe")
    network = build_network(*parts).to(device=device, dtype=dtype)
    network.load_state_dict(to_tensors(module))
    check_well_formed(tree["training"], network)
    history = tree["training"]["history"]
    if not 0 <= tree.get("start_epoch", 0) <= (history[-1]["epoch"] if history else 0):
        raise ValueError("start_epoch must not be negative or exceed the number of epochs")
    likelihood = copy.deepcopy(network.likelihood.fixed())
    likelihood.load_state_dict(to_tensors(tree.pop("likelihood")))
    tensors = {name: values.to(device) for name, values in to_tensors(tree.pop("density")).items()}
    density = estimator._density.restore(network, likelihood, tensors)
    n_outputs = network.latent.n_outputs
    # Files of earlier versions do not contain components.
    components = tree.setdefault("components", Components.plain(n_outputs))
    if not isinstance(components, Components) or len(components.offset) != n_outputs:
        raise ValueError(f"a model with codes of length {n_outputs} cannot have {components!r}")
    has_same_tensors = density.tensors().keys() == tensors.keys()
    numbers = [*tensors.values(), *likelihood.state_dict().values()]
    if not (
        has_same_tensors and density.is_finite() and all(map(torch.is_floating_point, numbers))
    ):
        raise ValueError("the density does not match this model")
    return Fitted(network=network.eval(), density=density, **tree)


def _check_tree(estimator: BaseEstimator, tree: dict[str, Any]) -> None:
    """Raise ValueError if parts of a stored model other than its arrays are inconsistent."""
    schema, conditions = tree["schema"], tree["conditions"]
    kinds = {"schema": Schema, "best_epoch": int, "seen": Seen, "n_components": int,
             "conditions": SeenConditions | None, "learned": dict, "parameters": dict}  # fmt: skip
    if "start_epoch" in tree:  # Files of earlier versions do not contain it.
        kinds["start_epoch"] = int
    wrong = [name for name, kind in kinds.items() if not matches_type(tree[name], kind)]
    if wrong:
        raise ValueError(f"{wrong[0]} of a model cannot be {tree[wrong[0]]!r}")
    known = modelling(estimator).supports
    supports = [block.support for block in schema.blocks]
    is_other = any(known.get(part.likelihood) != part for part in supports)
    if is_other or not has_same_likelihoods(estimator, schema):
        raise ValueError(f"{schema.blocks!r} do not match likelihood={estimator.likelihood!r}")
    if tree["parameters"].get("noise") != estimator.noise:
        raise ValueError("noise does not match the parameters of the fit")
    shape = row_shape(estimator)
    if (shape.full(len(schema.modelled)), shape.may_end_early) != (
        schema.feature_shape,
        schema.shape.may_end_early,
    ):
        raise ValueError("the shape of a row does not match feature_shape and architecture")
    if tree["best_epoch"] < 0:
        raise ValueError("best_epoch must not be negative")
    if tree["seen"].moments.mean.shape != schema.modelled.shape:
        raise ValueError("the moments of columns do not match the columns of the schema")
    if bool(schema.conditions) != (conditions is not None):
        raise ValueError("the conditions of training rows do not match the columns of conditions")
    if conditions is not None:
        conditions.check_columns(schema.n_levels)
