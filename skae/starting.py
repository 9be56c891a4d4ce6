"""Where training starts: the network that parameters describe, new, copied or restored."""

import copy
from numbers import Integral
from typing import Any

import numpy as np
import torch

from skae._compat.sklearn import validate_parameters
from skae.files import is_of
from skae.nn.bodies.architectures import make_architecture
from skae.nn.bodies.body import make_bodies
from skae.nn.growth import grow
from skae.nn.inputs import Inputs
from skae.nn.likelihoods import LIKELIHOODS, make_likelihood
from skae.nn.network import Network
from skae.nn.pca import DistinctRows, column_moments, components_for_share, of_observed_cells
from skae.state import Fitted, Known, NetworkMismatchError
from skae.table.columns import Support
from skae.table.rows import Rows, largest_sizes
from skae.table.schema import Schema, SeenConditions
from skae.table.sequences import RowShape, filled
from skae.training.loop import Net, check_well_formed, to_tensors
from skae.training.precision import check_overflow, check_scales, choose_dtype
from skae.training.split import Split
from skae.training.tensors import as_tensor, batch_of
from skae.training.threads import choose_device


def row_shape(options: Any) -> RowShape:
    """What a row is to an autoencoder's parameters."""
    return RowShape(options.feature_shape, options.architecture == "recurrent")


def support(options: Any) -> Support:
    """The values that the likelihood of an autoencoder's parameters takes."""
    return Support(options.likelihood, *LIKELIHOODS[options.likelihood].support)


def build_network(
    options: Any, schema: Schema, learned: dict[str, Any], n_components: int
) -> Network:
    """The network that parameters describe, weights not set."""
    d, n_conditions = len(schema.modelled), len(schema.conditions)
    architecture = make_architecture(
        options.architecture,
        d,
        None if options.feature_shape is None else RowShape(options.feature_shape, False).full(d),
        options.hidden_layer_sizes,
        options.activation,
        options.dropout,
    )
    latent = options._make_latent(n_components, Known(schema, learned))
    for name, able in (
        ("tied_weights", architecture.can_tie),
        ("layerwise_epochs", architecture.has_layers),
    ):
        if getattr(options, name) and not able:
            raise ValueError(
                f"architecture={options.architecture!r} cannot have "
                f"{name}={getattr(options, name)}: leave that parameter out."
            )
    if n_conditions and options.tied_weights:
        raise ValueError(
            "tied_weights=True is for decoders that see the code only, not conditions of rows: "
            "leave that parameter out."
        )
    inputs = Inputs(d, schema.n_levels, options._encoder_sees_conditions)
    likelihood = make_likelihood(options.likelihood, d, options.noise, latent.learns_noise)
    has_skip = architecture.likes_skip if options.linear_skip == "auto" else options.linear_skip
    encoder, decoder = make_bodies(
        architecture,
        latent.n_inputs,
        latent.n_outputs + inputs.n_conditions,
        bool(has_skip) and latent.is_linear,
        options.tied_weights,
    )
    return Network(inputs, encoder, decoder, latent, likelihood, options.trim)


def new_net(
    options: Any,
    schema: Schema,
    rows: Rows,
    split: Split,
    learned: dict[str, Any],
    shorter: Network | None,
    seed: int,
) -> Net:
    """A network that is built and initialized from the data, but not trained.

    Where there is a network with a `shorter` code, the start is that one's end.
    """
    device = choose_device(options.device)
    full = filled(rows.values, split.index, split.weight)
    largest = largest_sizes(full)
    check_overflow(largest, "X", schema, torch.float64)
    d = rows.n_modelled
    cells, conditions = as_tensor(full).tensor_split([d], dim=1)
    numbers, weight = torch.from_numpy(split.index), as_tensor(split.weight)
    x = DistinctRows(cells, numbers)
    moments = column_moments(x, weight)
    if full is not rows.values:
        observed = split.weight @ ~np.isnan(rows.modelled[split.index])
        moments = of_observed_cells(moments, torch.from_numpy(observed) / weight.sum())
    n_cells = len(rows) * (d + sum(max(1, n) for n in schema.n_levels))
    dtype = choose_dtype(options.precision, rows.values.dtype, n_cells, moments, largest, device)
    check_overflow(largest, "X", schema, dtype)
    check_scales(moments, options.noise, schema, dtype)
    generator = torch.Generator().manual_seed(seed)
    if options.n_components == "auto":
        k = options._auto_components(d)
    elif isinstance(options.n_components, Integral):
        k = int(options.n_components)
    else:
        k = components_for_share(x, weight, moments, float(options.n_components), generator)
    try:
        network = build_network(options, schema, learned, k).to(dtype)
    except (RuntimeError, TypeError, OverflowError) as error:
        raise ValueError(
            f"A network with n_components={k} and hidden_layer_sizes={options.hidden_layer_sizes} "
            f"for {d} columns does not fit into memory."
        ) from error
    network.start(x, weight, moments, generator, DistinctRows(conditions, numbers))
    batch = batch_of(
        rows.take(split.index[split.representatives]), network, split.weight[split.representatives]
    )
    if shorter is not None:
        grow(network, copy.deepcopy(shorter).to(network.like), batch, generator)
    network.start_latent(batch, generator)
    if device.type != "cpu":
        generator = torch.Generator(device).manual_seed(seed)
    return Net.from_module(network.to(device), generator)


def resumed_net(options: Any, resume: Fitted) -> Net:
    """A copy of a fitted net, its network built from the parameters as they are now."""
    k, schema = resume.network.latent.n_components, resume.schema
    try:
        if isinstance(options.n_components, Integral) and options.n_components != k:
            raise RuntimeError(f"n_components was {k}")
        if row_shape(options).full(len(schema.modelled)) != schema.feature_shape:
            raise RuntimeError(f"rows were of shape {schema.feature_shape}")
        network = build_network(options, schema, resume.learned, k).to(resume.network.like)
        network.load_state_dict(resume.network.state_dict())
    except RuntimeError as error:
        now = options.get_params(deep=False)
        changed = [k for k, v in resume.parameters.items() if repr(now[k]) != repr(v)]
        raise NetworkMismatchError(
            "The parameters describe another network than the one that was fitted, so training "
            f"cannot go on from it. Of those that have changed ({', '.join(changed)}), restore "
            "what shapes the network, or fit anew with warm_start=False."
        ) from error
    net = Net.from_module(network, torch.Generator(network.like.device))
    net.load_arrays(resume.training)
    return net


def restore(options: Any, tree: dict[str, Any]) -> Fitted:
    """The model that `Fitted.tree` describes, for an autoencoder with the parameters of its fit.

    Raises ValueError where the tree is not one of a model.
    """
    tree = dict(tree)
    try:
        device = choose_device(options.device)
    except ValueError:
        device = torch.device("cpu")
    validate_parameters(options)
    _check_tree(options, tree)
    dtype = {"float32": torch.float32, "float64": torch.float64}[tree.pop("dtype")]
    module, k = tree.pop("module"), tree.pop("n_components")
    parts = options, tree["schema"], tree["learned"], k
    # No memory is used before the stored arrays are known to have the network's shapes.
    with torch.device("meta"):
        outline = build_network(*parts).state_dict()
    shapes = {name: tuple(values.shape) for name, values in outline.items()}
    if shapes != {name: values.shape for name, values in module.items()}:
        raise ValueError("the arrays are not those of the network that the parameters describe")
    network = build_network(*parts).to(device=device, dtype=dtype)
    network.load_state_dict(to_tensors(module))
    check_well_formed(tree["training"], network)
    likelihood = copy.deepcopy(network.likelihood.fixed())
    likelihood.load_state_dict(to_tensors(tree.pop("likelihood")))
    tensors = {name: values.to(device) for name, values in to_tensors(tree.pop("density")).items()}
    density = options._density.restore(network, likelihood, tensors)
    is_its_own = density.tensors().keys() == tensors.keys()
    numbers = [*tensors.values(), *likelihood.state_dict().values()]
    if not (is_its_own and density.is_finite() and all(map(torch.is_floating_point, numbers))):
        raise ValueError("the moments of the codes are not those of this model")
    return Fitted(network=network.eval(), density=density, **tree)


def _check_tree(options: Any, tree: dict[str, Any]) -> None:
    """Raise ValueError where what a file says of a model, arrays apart, cannot be so."""
    schema, conditions = tree["schema"], tree["conditions"]
    kinds = {"schema": Schema, "best_epoch": int, "rows_seen": float, "n_components": int,
             "conditions": SeenConditions | None, "learned": dict, "parameters": dict}  # fmt: skip
    wrong = [name for name, kind in kinds.items() if not is_of(tree[name], kind)]
    if wrong:
        raise ValueError(f"{wrong[0]} of a model cannot be {tree[wrong[0]]!r}")
    schema.check_well_formed()
    if schema.support != support(options):
        raise ValueError(f"{schema.support!r} is not that of likelihood={options.likelihood!r}")
    if tree["parameters"].get("noise") != options.noise:
        raise ValueError("the parameters of the fit do not state its noise")
    shape = row_shape(options)
    if (shape.full(len(schema.modelled)), shape.may_end_early) != (
        schema.feature_shape,
        schema.shape.may_end_early,
    ):
        raise ValueError("rows have another shape than the parameters describe")
    if not 0 < tree["rows_seen"] < np.inf or tree["best_epoch"] < 0:
        raise ValueError("numbers of rows and epochs must not be negative")
    if bool(schema.conditions) != (conditions is not None):
        raise ValueError("conditions of rows belong to columns of conditions")
    if conditions is not None:
        conditions.check_well_formed(schema.n_levels)
