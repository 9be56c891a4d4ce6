"""Conditions of rows: of every estimator that takes some, and the schema that reads them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator
from test_common import check_name, public_estimators
from test_persistence import WAYS

import skae
from skae.nn.batch import Batch
from skae.nn.inputs import Inputs
from skae.nn.pca import DistinctRows, column_moments
from skae.table.blocks import Modelling
from skae.table.columns import MAX_INTEGER_LEVELS, Support
from skae.table.conditions import MIN_ROWS, SeenConditions
from skae.table.rows import Rows, hash_rows
from skae.table.schema import Schema
from skae.table.sequences import RowShape
from skae.training.checkpoint import signature
from skae.variants.conditioned import ConditionedAutoencoder

ESTIMATORS = [c for c in public_estimators() if issubclass(c, ConditionedAutoencoder)]
TINY = {"n_components": 2, "hidden_layer_sizes": (6,), "max_epochs": 3, "random_state": 0}
SMALL = {"hidden_layer_sizes": (8,), "max_epochs": 4}

RNG = np.random.default_rng(0)
N = 60
KIND = np.array(["a", "b", "c"])[np.arange(N) % 3]
AGE = RNG.uniform(20, 70, size=N)
CELLS = RNG.normal(size=(N, 4)) + (np.arange(N) % 3)[:, None] + AGE[:, None] / 50
FRAME = pd.DataFrame(CELLS, columns=list("wxyz"))
FRAME.insert(1, "kind", KIND)
FRAME["age"] = AGE
NUMBERS = np.column_stack([np.arange(N) % 3, CELLS])
"""A table of numbers whose first column is a class."""

REFUSED = {
    "check_array_api_input": "inverse_transform needs a condition, which the check does not have"
}


@pytest.fixture(params=ESTIMATORS, ids=lambda c: c.__name__)
def estimator_class(request):
    return request.param


def made(estimator_class, condition, **parameters):
    name = estimator_class._condition_parameter
    return estimator_class(**(TINY | {name: condition} | parameters))


def plain(table):
    """A table as an array, whose dtype is object if its columns have different types."""
    return table.to_numpy() if hasattr(table, "columns") else table


def answers(model, X, condition):
    of_rows = [np.asarray(getattr(model, m)(X)) for m in ("transform", "score_samples")]
    codes = model.transform(X)
    return [
        *of_rows,
        plain(model.reconstruct(X)),
        plain(model.inverse_transform(codes, condition)),
        plain(model.sample(5, random_state=0)),
        plain(model.translate(X, condition)),
    ]


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def checks():
    for estimator_class in ESTIMATORS:
        estimator = made(estimator_class, 0, **SMALL)
        for _, check in estimator_checks_generator(estimator, legacy=True, mark=None):
            yield pytest.param(
                estimator, check, id=f"{estimator_class.__name__}-{check_name(check)}"
            )


@pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names:UserWarning")
@pytest.mark.filterwarnings("ignore:Posterior collapse")
@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_scikit_learns_checks_with_a_condition(estimator, check):
    if check_name(check) in REFUSED:
        with pytest.raises(ValueError, match="needs condition"):
            check(estimator)
        return
    check(estimator)


def test_without_conditions_all_columns_are_modelled(estimator_class):
    model = made(estimator_class, None).fit(CELLS)
    rows = model.inverse_transform(model.transform(CELLS))
    assert rows.shape == model.sample(N, random_state=0).shape == CELLS.shape
    for call in (model.sample, lambda condition: model.translate(CELLS, condition)):
        with pytest.raises(ValueError, match="condition must be None"):
            call(condition=1)


def test_rows_come_back_with_all_columns(estimator_class):
    model = made(estimator_class, ["kind", "age"]).fit(FRAME)
    back = model.reconstruct(FRAME)
    pd.testing.assert_series_equal(back.dtypes, FRAME.dtypes)
    back = back.to_numpy()
    assert back.shape == FRAME.shape
    assert back[:, 1].tolist() == KIND.tolist()
    np.testing.assert_array_equal(back[:, -1].astype(float), AGE)
    codes = model.transform(FRAME)
    given = model.inverse_transform(codes, FRAME[["age", "kind"]])
    assert_same([given.to_numpy(), model.translate(FRAME, FRAME).to_numpy()], [back, back])
    other = model.translate(FRAME, ["b", 33.5]).to_numpy()
    assert {*other[:, 1]} == {"b"}
    assert {*other[:, -1]} == {33.5}
    errors = model.reconstruction_error(FRAME, per_feature=True)
    assert errors.shape == FRAME.shape
    assert not errors[:, [1, 5]].any()
    expected = ((back[:, [0, 2, 3, 4]] - CELLS).astype(float) ** 2).sum(axis=1)
    np.testing.assert_allclose(model.reconstruction_error(FRAME), expected)


def test_numbers_stay_numbers(estimator_class):
    model = made(estimator_class, 0).fit(NUMBERS)
    back = model.translate(NUMBERS, NUMBERS[::-1, :1])
    assert back.dtype == float
    np.testing.assert_array_equal(back[:, 0], NUMBERS[::-1, 0])
    table = NUMBERS.astype(np.float32)
    single = made(estimator_class, 0).fit(table)
    assert single.reconstruct(table).dtype == single.translate(table, 1).dtype == np.float32


def test_a_condition_may_be_the_same_in_all_rows(estimator_class):
    for value in (1, 0.5, "text"):
        model = made(estimator_class, "same").fit(FRAME[list("wxyz")].assign(same=value))
        assert np.isfinite(model.transform(FRAME[list("wxyz")].assign(same=value))).all()
        assert plain(model.sample(2))[0, -1] == value


@pytest.mark.parametrize(
    "condition",
    [
        ["age", "kind"],
        [5, 1],
        [-1, 1],
        np.array([False, True, False, False, False, True]),
        lambda X: ["kind", "age"],
        make_column_selector(pattern="kind|age"),
    ],
    ids=["names", "numbers", "negative", "mask", "callable", "selector"],
)
def test_columns_are_named_in_any_way(estimator_class, condition):
    model = made(estimator_class, condition).fit(FRAME)
    expected = made(estimator_class, ["kind", "age"]).fit(FRAME)
    np.testing.assert_array_equal(model.transform(FRAME), expected.transform(FRAME))


def test_a_slice_and_a_single_name(estimator_class):
    by_slice = made(estimator_class, slice(0, 1)).fit(NUMBERS).transform(NUMBERS)
    by_number = made(estimator_class, 0).fit(NUMBERS).transform(NUMBERS)
    frame = pd.DataFrame(NUMBERS, columns=list("abcde"))
    by_name = made(estimator_class, "a").fit(frame).transform(frame)
    assert_same([by_slice, by_name], [by_number, by_number])


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (None, "inverse_transform needs condition, .* values of kind, age"),
        (["d", 30], "Column 'kind' must hold categories .*, got 'd' in row 0"),
        (["a"], "values of kind, age, in this order"),
        ([["a", 30], ["b", 40]], "in one row or in 60 rows, got 2 rows"),
        (["a", np.nan], r"Column 'age' contains NaN in row 0"),
        ([None, 30], r"Column 'kind' contains NaN in row 0"),
        (["a", np.inf], "Column 'age' contains infinity in row 0"),
        (["a", "old"], "Column 'age' must hold numbers, got 'old'"),
        ([1, 30], "Column 'kind' must hold categories .*, got 1 in row 0"),
        (FRAME[["age"]], "has no column 'kind'"),
    ],
    ids=str,
)
def test_a_wrong_condition_is_named(estimator_class, condition, message):
    model = made(estimator_class, ["kind", "age"]).fit(FRAME)
    with pytest.raises(ValueError, match=message):
        model.inverse_transform(model.transform(FRAME), condition)
    if condition is not None:
        with pytest.raises(ValueError, match=message):
            model.sample(60, condition=condition)
    with pytest.raises(ValueError, match=message.replace("inverse_transform", "translate")):
        model.translate(FRAME, condition)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "d"}, "Column 'kind' must hold categories .*, got 'd' in row 0"),
        ({"kind": None}, "Column 'kind' contains NaN"),
        ({"age": np.nan}, "Column 'age' contains NaN"),
        ({"w": np.inf}, "infinity"),
        ({"w": "text"}, r"In column 0 \('w'\) .*got 'text' in row 0"),
    ],
    ids=str,
)
def test_wrong_rows_are_named(estimator_class, change, message):
    model = made(estimator_class, ["kind", "age"]).fit(FRAME)
    wrong = FRAME.assign(**change)
    before = model.transform(FRAME)
    for call in (model.transform, model.score_samples, model.reconstruct, model.partial_fit):
        with pytest.raises(ValueError, match=message):
            call(wrong)
    np.testing.assert_array_equal(model.transform(FRAME), before)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("unknown", "must select columns of X"),
        (99, "must select columns of X"),
        ([], "must select at least one column of X"),
        (slice(None), r"must not select all 6 feature\(s\) of X"),
    ],
    ids=str,
)
def test_wrong_columns_are_named(estimator_class, condition, message):
    name = estimator_class._condition_parameter
    with pytest.raises(ValueError, match=f"{name}=.*{message}"):
        made(estimator_class, condition).fit(FRAME)


def test_tied_weights_have_no_room_for_conditions(estimator_class):
    with pytest.raises(ValueError, match="tied_weights=True is not supported with"):
        made(estimator_class, 0, tied_weights=True).fit(NUMBERS)


def test_draws_have_the_training_rows_conditions(estimator_class):
    weight = np.where(KIND == "a", 8.0, 1.0)
    model = made(estimator_class, "kind").fit(FRAME.drop(columns="age"), sample_weight=weight)
    kinds = plain(model.sample(4000, random_state=0))[:, 1]
    shares = [(kinds == kind).mean() for kind in "abc"]
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.02)


def test_rows_of_later_calls_count_among_the_conditions(estimator_class):
    model = made(estimator_class, 0).partial_fit(NUMBERS).partial_fit(NUMBERS[NUMBERS[:, 0] == 1])
    shares = np.bincount(model.sample(4000, random_state=0)[:, 0].astype(int)) / 4000
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.03)


@pytest.mark.parametrize("way", WAYS)
def test_every_round_trip_keeps_the_bits(estimator_class, way, tmp_path):
    model = made(estimator_class, ["kind", "age"]).fit(FRAME)
    again = way(model, tmp_path)
    assert_same(answers(again, FRAME, ["b", 30]), answers(model, FRAME, ["b", 30]))
    assert_same(
        answers(again.partial_fit(FRAME), FRAME, ["b", 30]),
        answers(model.partial_fit(FRAME), FRAME, ["b", 30]),
    )


def test_a_column_that_is_named_anew_changes_nothing_before_the_next_fit(estimator_class):
    model = made(estimator_class, "kind").fit(FRAME)
    expected = answers(model, FRAME, "a")
    model.set_params(**{estimator_class._condition_parameter: ["kind", "age"]})
    assert_same(answers(model, FRAME, "a"), expected)
    assert model.fit(FRAME).sample(2, condition=["a", 30]).shape == (2, 6)


def test_behind_a_column_transformer(estimator_class):
    prepare = ColumnTransformer(
        [("scaled", StandardScaler(), list("wxyz")), ("kept", "passthrough", ["kind", "age"])],
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    pipeline = make_pipeline(prepare, made(estimator_class, ["kind"])).fit(FRAME)
    assert pipeline.transform(FRAME).shape == (N, 2)
    one_hot = OneHotEncoder(sparse_output=False)
    prepare = ColumnTransformer(
        [("scaled", StandardScaler(), list("wxyz")), ("coded", one_hot, ["kind"])]
    ).set_output(transform="pandas")
    step = made(estimator_class, make_column_selector(pattern="^coded"))
    pipeline = make_pipeline(prepare, step).fit(FRAME)
    name = f"{estimator_class.__name__.lower()}__max_epochs"
    search = GridSearchCV(pipeline, {name: [1, 2]}, cv=2).fit(FRAME)
    assert np.isfinite(search.best_score_)
    pipeline.set_output(transform="pandas")
    assert isinstance(pipeline.transform(FRAME), pd.DataFrame)


def test_rows_between_two_conditions(estimator_class):
    model = made(estimator_class, 0).fit(NUMBERS)
    steps = model.interpolate(NUMBERS[:1], NUMBERS[1:2], n_steps=4)
    assert steps[:, 0].tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(steps[[0, -1]], model.reconstruct(NUMBERS[:2]), rtol=1e-9)
    assert model.traverse(NUMBERS[2], 1, [-1, 0, 1])[:, 0].tolist() == [2, 2, 2]


@pytest.mark.parametrize("body", [{}, {"linear_skip": False}, {"layerwise_epochs": 1}], ids=str)
@pytest.mark.parametrize(
    "corruption", ["gaussian", "masking", "salt_and_pepper", "swap", "own", "pairs"]
)
def test_conditions_are_never_corrupted(estimator_class, corruption, body, monkeypatch):
    seen = []
    encode = Inputs.conditions

    def noted(self, batch):
        seen.append(batch.x[:, self.n_outputs :].detach())
        return encode(self, batch)

    def own(x, generator):
        assert x.shape[1] == 4
        return x + 100

    monkeypatch.setattr(Inputs, "conditions", noted)
    pairs = {"X_corrupted": NUMBERS + 7} if corruption == "pairs" else {}
    named = {"pairs": None, "own": own}.get(corruption, corruption)
    model = made(estimator_class, 0, corruption=named, corruption_level=0.5, **body)
    model.fit(NUMBERS, **pairs)
    assert {*torch.cat([t.flatten() for t in seen]).tolist()} == {0.0, 1.0, 2.0}


@pytest.mark.parametrize(
    ("parameters", "cells"),
    [
        ({"architecture": "conv", "feature_shape": (1, 2, 2), "hidden_layer_sizes": (3,)}, CELLS),
        ({"architecture": "recurrent", "feature_shape": (4, 1)}, CELLS),
        ({"likelihood": "bernoulli"}, CELLS.mean(axis=0) < CELLS),
        ({"noise": "diagonal", "precision": "float32"}, CELLS),
        ({"hidden_layer_sizes": ()}, CELLS),
    ],
    ids=["conv", "recurrent", "bernoulli", "diagonal", "linear"],
)
def test_any_network_takes_conditions(estimator_class, parameters, cells):
    table = np.column_stack([np.arange(N) % 3, cells]).astype(float)
    model = made(estimator_class, 0, **parameters).fit(table)
    assert all(np.isfinite(answer).all() for answer in answers(model, table, 1))
    assert not np.array_equal(model.translate(table, 0)[:, 1:], model.translate(table, 1)[:, 1:])


def test_a_classifier_takes_autoencoders_with_conditions(estimator_class):
    y = (CELLS[:, 0] > 0).astype(int)
    model = skae.AutoencoderClassifier(made(estimator_class, 0)).fit(NUMBERS, y)
    assert model.predict(NUMBERS).shape == (N,)


def test_training_does_not_go_on_with_other_conditions(estimator_class):
    """Else a column that is named late would not be hidden, in silence."""
    name = estimator_class._condition_parameter
    numbers = FRAME.drop(columns="kind")
    for before, now in ((None, "age"), ("age", "w"), ("age", None)):
        model = made(estimator_class, before, warm_start=True).fit(numbers)
        expected = model.transform(numbers)
        model.set_params(**{name: now})
        for call in (model.fit, model.partial_fit):
            with pytest.raises(ValueError, match=f"{name}=.* training cannot resume"):
                call(numbers)
        np.testing.assert_array_equal(model.transform(numbers), expected)


def test_rows_of_no_weight_decide_nothing(estimator_class):
    strange = FRAME.assign(kind="z", age="old").astype({"age": object})
    table = pd.concat([strange[:5], FRAME, strange[:5]]).reset_index(drop=True)
    weight = np.r_[np.zeros(5), np.ones(N), np.zeros(5)]
    model = made(estimator_class, ["kind", "age"]).fit(table, sample_weight=weight)
    expected = made(estimator_class, ["kind", "age"]).fit(FRAME)
    np.testing.assert_array_equal(model.transform(FRAME), expected.transform(FRAME))


def test_texts_beside_booleans(estimator_class):
    frame = FRAME.assign(kind=pd.Categorical(KIND), flag=FRAME["w"] > 0)
    model = made(estimator_class, ["kind", "flag"]).fit(frame.drop(columns="age"))
    assert {*plain(model.sample(50, random_state=0))[:, -1]} == {False, True}


def test_lists_of_rows(estimator_class):
    rows = FRAME.to_numpy().tolist()
    model = made(estimator_class, [1, 5]).fit(rows)
    expected = made(estimator_class, [1, 5]).fit(FRAME).transform(FRAME)
    np.testing.assert_array_equal(model.transform(rows), expected)


def test_one_row_of_names_and_values(estimator_class):
    model = made(estimator_class, ["kind", "age"]).fit(FRAME)
    expected = model.translate(FRAME, ["b", 33.5])
    for one in ({"age": 33.5, "kind": "b"}, pd.Series({"age": 33.5, "kind": "b"})):
        pd.testing.assert_frame_equal(model.translate(FRAME, one), expected)


def test_large_whole_numbers_stay_exact(estimator_class):
    stamp = 16_777_217 + np.arange(N) % 3
    frame = FRAME[list("wxyz")].astype(np.float32).assign(stamp=stamp)
    model = made(estimator_class, "stamp").fit(frame)
    assert model.reconstruct(frame)["stamp"].tolist() == stamp.tolist()


def test_sequences_that_end_early(estimator_class):
    """The missing ends are not modelled, with a condition as without."""
    table = np.column_stack([RNG.normal(size=(N, 12)), np.arange(N) % 3])
    table[:20, 8:12] = np.nan
    kind = {"architecture": "recurrent", "feature_shape": (6, 2)}
    model = made(estimator_class, -1, **kind).fit(table)
    assert np.isfinite(model.score_samples(table)).all()
    assert np.isfinite(model.transform(table)).all()


@pytest.mark.parametrize(
    "condition", [make_column_selector("kind"), pd.Index(["kind"])], ids=["selector", "index"]
)
def test_what_a_file_cannot_hold_is_refused(estimator_class, condition, tmp_path):
    model = made(estimator_class, condition).fit(FRAME.drop(columns="age"))
    with pytest.raises(TypeError, match=f"{estimator_class._condition_parameter}=.*Use pickle"):
        model.save(tmp_path / "model.safetensors")


def test_other_columns_are_another_fit(estimator_class):
    """Where checkpoints tell fits apart."""
    masks = np.zeros((2, 3000), dtype=bool)
    masks[[0, 1], [1000, 1001]] = True
    first, second = (signature(made(estimator_class, mask)) for mask in masks)
    assert first != second
    selectors = [made(estimator_class, make_column_selector("kind")) for _ in range(2)]
    assert signature(selectors[0]) == signature(selectors[1])


# ---------------------------------------------------------------------- schema

ANY_NUMBER = Support("gaussian", -np.inf, np.inf)


def inferred(X, condition, support=ANY_NUMBER, shape=(None, False)):
    """The schema of a table and its rows."""
    modelling = Modelling(support.likelihood, {support.likelihood: support})
    return Schema.infer(X, ("condition", condition), modelling, RowShape(*shape), "Model")


def read_column(values):
    """The schema of a table with a condition of these values, the table, and its rows."""
    X = pd.DataFrame({"known": values, "other": np.arange(float(len(values)))})
    return *inferred(X, "known"), X


def one_hot(rows):
    """Conditions as networks encode them, before they are scaled."""
    inputs = Inputs(rows.n_modelled, rows.n_levels).double()
    return inputs.condition_encoding(torch.from_numpy(rows.conditions)).numpy()


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        (np.arange(40) % 3, [0, 1, 2]),
        (np.arange(40) % 2 == 0, [False, True]),
        (pd.Categorical(["u", "v"] * 20), ["u", "v"]),
        (pd.Categorical(np.arange(40) % 30 / 4), [*np.arange(30) / 4]),
        (np.arange(40) / 3, None),
        (np.arange(MAX_INTEGER_LEVELS + 1.0), None),
        (np.arange(MAX_INTEGER_LEVELS * 1.0), [*range(MAX_INTEGER_LEVELS)]),
        (pd.array([1, 2, 3] * 4, dtype="Int64"), [1, 2, 3]),
    ],
    ids=["whole", "booleans", "categories", "declared", "numbers", "many", "twenty", "nullable"],
)
def test_kinds_of_columns(values, levels):
    schema, rows, X = read_column(values)
    [column] = schema.conditions
    assert column.levels is None if levels is None else column.levels.tolist() == levels
    assert schema.n_levels == rows.n_levels == (0 if levels is None else len(levels),)
    assert rows.conditions.shape == (len(X), 1)
    assert column.decode(rows.conditions[:, 0]).tolist() == np.asarray(values).tolist()
    if levels is not None:
        encoded = one_hot(rows)
        assert encoded.shape == (len(X), len(levels))
        assert (encoded.sum(axis=1) == 1).all()
        assert (encoded.argmax(axis=1) == rows.conditions[:, 0]).all()


@pytest.mark.parametrize("container", [pd.DataFrame, lambda X: X.to_numpy(dtype=object)])
@pytest.mark.parametrize("condition", [[1, 5, 6, 7], [1], [5], slice(4, 8)], ids=str)
def test_a_schema_writes_what_it_reads(container, condition):
    """Numbers, strings, booleans and pandas' categories come back as they were, in their places."""
    positions = [*range(8)][condition] if isinstance(condition, slice) else condition
    frame = FRAME.assign(flag=FRAME["w"] > 0, size=pd.Categorical(np.arange(N) % 4 / 2))
    numbers = {"kind": np.arange(N) / 3, "flag": RNG.normal(size=N), "size": RNG.normal(size=N)}
    modelled = {k: v for k, v in numbers.items() if frame.columns.get_loc(k) not in positions}
    frame = frame.assign(**modelled)
    table = container(frame)
    schema, rows = inferred(table, condition)
    assert [column.index for column in schema.conditions] == positions
    modelled = [j for j in range(8) if j not in positions]
    assert schema.modelled.tolist() == modelled
    names = [schema.column_label(j).split()[0] for j in range(8)]
    assert names == [str(j) for j in [*modelled, *positions]]
    np.testing.assert_array_equal(rows.modelled, frame.iloc[:, modelled].to_numpy(dtype=float))
    again = schema.read(table)
    np.testing.assert_array_equal(again.values, rows.values)
    assert (again.n_levels, again.may_have_missing) == (rows.n_levels, False)
    back = schema.write(rows.modelled, rows.conditions)
    assert plain(back).tolist() == frame.to_numpy(dtype=object).tolist()
    if container is pd.DataFrame:
        pd.testing.assert_frame_equal(back, frame)
    blank = plain(schema.write(rows.modelled))
    is_blank = pd.isna if container is pd.DataFrame else lambda cells: cells == 0
    assert is_blank(blank[:, positions]).all()
    np.testing.assert_array_equal(blank[:, modelled].astype(float), rows.modelled)
    # Rows of a later table are read one by one, in any order, with the levels of the first.
    np.testing.assert_array_equal(schema.read(table[20:40][::-1]).values, rows.values[20:40][::-1])


def test_without_conditions_a_schema_changes_nothing():
    schema, rows = inferred(CELLS, None)
    assert schema.conditions == []
    assert (schema.n_levels, rows.n_levels, rows.n_modelled) == ((), (), 4)
    np.testing.assert_array_equal(rows.values, CELLS)
    np.testing.assert_array_equal(schema.write(rows.modelled, rows.conditions), CELLS)
    assert inferred(CELLS.astype(np.float32), None)[1].values.dtype == np.float32


def test_names_are_those_of_the_first_table():
    schema, rows = inferred(FRAME, ["kind", "age"])
    assert schema.names.tolist() == [*FRAME.columns]
    assert [column.name for column in schema.conditions] == ["kind", "age"]
    with pytest.raises(ValueError, match="feature names should match"):
        schema.read(FRAME.rename(columns={"w": "other"}))
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        schema.read(FRAME.to_numpy())
    again = replace(schema, names=None).read(FRAME.to_numpy())
    np.testing.assert_array_equal(again.values, rows.values)


def test_a_schema_keeps_to_the_range_of_the_likelihood():
    shares = Support("bernoulli", 0.0, 1.0)
    inferred(np.column_stack([CELLS > 0, 7.5 - AGE]), -1, shares)  # conditions may be outside
    with pytest.raises(ValueError, match=r"Negative values in data passed to Model"):
        inferred(NUMBERS, 0, shares)
    schema = inferred(np.column_stack([np.arange(N) % 3, CELLS > 0]), 0, shares)[0]
    with pytest.raises(ValueError, match=r"Values above 1 in data passed to Model"):
        schema.read(np.column_stack([np.arange(N) % 3, 2 * (CELLS > 0)]))


def test_rows_are_taken_and_cut_without_a_change():
    table = np.column_stack([RNG.normal(size=(N, 4)), np.arange(N) % 3])
    table[:9, 3] = np.nan
    rows = inferred(table, -1, shape=((4, 1), True))[1]
    assert rows.may_have_missing
    assert len(rows) == N
    index = np.array([5, 2, 2, 59])
    marked = np.isin(np.arange(N), index)
    for chosen in (index, marked):
        taken = rows.take(chosen)
        np.testing.assert_array_equal(taken.values, rows.values[chosen])
        assert (taken.n_levels, taken.may_have_missing) == (rows.n_levels, True)
        np.testing.assert_array_equal(taken.hash(3), rows.hash(3)[chosen])
    for size, lengths in ((25, [25, 25, 10]), (N, [N]), (1000, [N]), (1, [1] * N)):
        blocks = [*rows.blocks(size)]
        assert [len(block) for block in blocks] == lengths
        np.testing.assert_array_equal(np.vstack([b.values for b in blocks]), rows.values)
        assert all((b.n_levels, b.may_have_missing) == (rows.n_levels, True) for b in blocks)
    assert [*rows.take(np.zeros(0, dtype=int)).blocks(10)] == []


def test_equal_rows_and_no_others_share_a_hash():
    frame = FRAME.assign(flag=FRAME["w"] > 0)
    schema, rows = inferred(frame, ["kind", "age", "flag"])
    hashes = rows.hash(0)
    assert len({*hashes}) == N
    order = RNG.permutation(N)
    np.testing.assert_array_equal(schema.read(frame.iloc[order]).hash(0), hashes[order])
    assert not (rows.hash(1) == hashes).any()
    # One level, one boolean, one number or one modelled cell changed makes another row.
    for change in (
        {"kind": frame["kind"].map({"a": "b", "b": "c", "c": "a"})},
        {"flag": ~frame["flag"]},
        {"age": np.nextafter(AGE, np.inf)},
        {"z": -frame["z"]},
    ):
        changed = schema.read(frame.assign(**change)).hash(0)
        assert not np.isin(changed, hashes).any()
    zeros = [hash_rows(np.array([[zero, 1.0]]), 0) for zero in (0.0, -0.0)]
    np.testing.assert_array_equal(*zeros)
    half = FRAME[list("wxyz")].to_numpy(dtype=np.float32)
    np.testing.assert_array_equal(hash_rows(half, 0), hash_rows(half.astype(float), 0))


def test_a_level_enters_a_hash_as_a_column_of_its_own():
    """Else the numbers of levels, which depend on what other levels there are, would decide."""
    rows = inferred(FRAME, ["kind", "age"])[1]
    columns = np.column_stack([rows.modelled, one_hot(rows)])
    np.testing.assert_array_equal(rows.hash(5), hash_rows(columns, 5))


def seen_and_drawn(cells, n_levels, weight=None, earlier=None, n=20_000):
    """The summary of conditions, and conditions that are drawn from it."""
    weight = np.ones(len(cells)) if weight is None else weight
    rows = Rows(np.column_stack([np.zeros(len(cells)), cells]), n_levels)
    seen = SeenConditions.from_rows(rows, weight, earlier)
    seen._check_state()
    seen.check_columns(n_levels)
    uniform = np.random.default_rng(9).random((n, 1 + seen.n_numeric))
    return seen, seen.draw(n_levels, uniform)


def distance(drawn, values, weight=None):
    """The Kolmogorov-Smirnov distance between drawn and weighted values."""
    at = np.sort(np.append(values, drawn))
    order = np.argsort(values)
    ends = np.append(0, (np.ones(len(values)) if weight is None else weight)[order].cumsum())
    expected = ends[np.searchsorted(values[order], at, side="right")] / ends[-1]
    return np.abs(np.searchsorted(np.sort(drawn), at, side="right") / len(drawn) - expected).max()


def mixed_conditions(n, seed=0):
    """A skewed number, one that depends on it, and a category on which both depend."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, size=n, p=[0.6, 0.3, 0.1])
    income = np.exp(rng.normal(size=n) / 2 + kind)
    return np.column_stack([income, kind, 3 * income + rng.normal(size=n)])


@pytest.mark.parametrize(("n", "limit"), [(30, 0.2), (300, 0.05), (5000, 0.02), (30_000, 0.02)])
def test_drawn_conditions_are_distributed_as_those_of_the_rows(n, limit):
    cells = mixed_conditions(n)
    seen, drawn = seen_and_drawn(cells, (0, 3, 0))
    assert seen.count.sum() == min(n, 10_000)
    np.testing.assert_allclose(seen.weight.sum(), n)
    for j in (0, 2):
        assert distance(drawn[:, j], cells[:, j]) < limit
    shares = [
        np.bincount(part[:, 1].astype(int), minlength=3) / len(part) for part in (cells, drawn)
    ]
    np.testing.assert_allclose(*shares, atol=0.02)
    correlations = [np.corrcoef(part[:, [0, 2]].T)[0, 1] for part in (cells, drawn)]
    assert abs(np.subtract(*correlations)) < 0.02
    if n >= 300:
        for level in (0, 1):
            parts = [part[part[:, 1] == level, 0] for part in (cells, drawn)]
            assert distance(*parts[::-1]) < 2 * limit


@pytest.mark.parametrize("n", [2, 9, 30, 300, 12_000])
@pytest.mark.parametrize("n_levels", [(0, 3, 0), (0, 200, 0), (0, 0, 0)])
def test_a_summary_keeps_moments_but_no_numbers_of_rows(n, n_levels):
    rng = np.random.default_rng(n)
    cells = mixed_conditions(n)
    cells[:, 1] = rng.integers(n_levels[1], size=n) if n_levels[1] else rng.normal(size=n)
    weight = rng.uniform(0.1, 3, size=n)
    seen, drawn = seen_and_drawn(cells, n_levels, weight)
    numbers = cells[:, np.equal(n_levels, 0)]
    for part in (seen.mean, seen.root, drawn[:, np.equal(n_levels, 0)]):
        assert not np.isin(part, numbers).any()
    if n <= 10_000:
        share = np.bincount(seen.group, seen.weight) / seen.weight.sum()
        center = share @ seen.mean
        np.testing.assert_allclose(center, np.average(numbers, axis=0, weights=weight))
        centered = seen.mean - center
        inner = np.tensordot(share, seen.root @ seen.root.transpose(0, 2, 1), 1)
        np.testing.assert_allclose(
            inner + (centered.T * share) @ centered, np.cov(numbers.T, aweights=weight, ddof=0)
        )
    rows_of_groups = np.bincount(seen.group, seen.count)
    assert (rows_of_groups >= min(n, MIN_ROWS)).all()
    assert len(seen.mean) <= 512


def test_a_combination_of_categories_is_drawn_as_often_as_it_occurs():
    cells = np.random.default_rng(0).choice(4, size=(500, 2), p=[0.4, 0.3, 0.2, 0.1]) * [1, 0.5]
    cells = cells.round()
    weight = np.random.default_rng(1).uniform(0, 2, size=500) * (np.arange(500) % 5 > 0)
    _, drawn = seen_and_drawn(cells, (4, 3), weight, n=100_000)
    pairs = [4 * part[:, 1].astype(int) + part[:, 0].astype(int) for part in (cells, drawn)]
    expected = np.bincount(pairs[0], weight, minlength=12) / weight.sum()
    np.testing.assert_allclose(np.bincount(pairs[1], minlength=12) / 1e5, expected, atol=0.006)


def test_a_number_that_many_rows_share_is_drawn_exactly():
    """It is that of no single row: of whole years, or of no income."""
    age = np.random.default_rng(0).binomial(60, 0.5, size=3000).astype(float)
    _, drawn = seen_and_drawn(age[:, None], (0,))
    assert np.isin(drawn, age).mean() > 0.95
    assert distance(drawn[:, 0], age) < 0.02


def test_columns_without_variance_and_of_any_scale_are_drawn():
    cells = np.random.default_rng(0).normal(size=(50, 4)) * [1e-200, 1e200, 0, 1] + [0, 0, 0.3, 1e9]
    _, drawn = seen_and_drawn(cells, (0, 0, 0, 0))
    assert np.isfinite(drawn).all()
    assert (drawn[:, 2] == 0.3).all()
    for j in (0, 1, 3):
        assert distance(drawn[:, j], cells[:, j]) < 0.12


def test_conditions_of_later_fits_are_added():
    parts = [mixed_conditions(n, seed=n) for n in (40, 2, 1, 1, 700, 1, 90, 400)]
    earlier = None
    for part in parts:
        earlier, drawn = seen_and_drawn(part, (0, 3, 0), earlier=earlier)
    cells = np.vstack(parts)
    assert earlier.count.sum() == earlier.weight.sum().round() == len(cells)
    for part in (earlier.mean, earlier.root, drawn[:, [0, 2]]):
        assert not np.isin(part, cells[:, [0, 2]]).any()
    for j in (0, 2):
        assert distance(drawn[:, j], cells[:, j]) < 0.03
    share = np.bincount(earlier.group, earlier.weight) / len(cells)
    np.testing.assert_allclose(share @ earlier.mean, cells[:, [0, 2]].mean(axis=0))


def test_many_conditions_are_cut_to_a_fair_sample(monkeypatch):
    monkeypatch.setattr("skae.table.conditions.MAX_CONDITIONS", 200)
    cells = np.column_stack([np.arange(5000) % 1000, np.arange(5000.0) / 7])
    earlier = None
    for _ in range(3):
        earlier, drawn = seen_and_drawn(cells, (1000, 0), earlier=earlier)
        assert len(earlier.weight) <= 200
    np.testing.assert_allclose(earlier.weight.sum(), 15_000)
    assert abs(drawn[:, 1].mean() / (2500 / 7) - 1) < 0.15


def test_the_start_leaves_what_least_squares_leaves():
    rows = Rows(np.column_stack([CELLS, np.arange(N) % 3, AGE]), (3, 0))
    weight = RNG.uniform(0.5, 2, size=N)
    tables = [
        DistinctRows(torch.from_numpy(part), torch.arange(N))
        for part in (rows.modelled, rows.conditions)
    ]
    w = torch.from_numpy(weight)
    inputs = Inputs(4, rows.n_levels).double()
    at = column_moments(tables[0], w)
    left, _ = inputs.start(*tables, w, at)
    known = np.column_stack([np.ones(N), np.eye(3)[np.arange(N) % 3], AGE])
    root = np.sqrt(weight)[:, None]
    slopes = np.linalg.lstsq(known * root, CELLS * root, rcond=None)[0]
    expected = CELLS - known @ slopes
    center = np.average(CELLS, axis=0, weights=weight)
    np.testing.assert_allclose(left[:].numpy() - center, expected, atol=1e-10)
    # The encoder sees just that, on the network's scale.
    with torch.no_grad():
        seen = inputs(Batch(torch.from_numpy(rows.values), w))
    np.testing.assert_allclose(seen.numpy(), expected / at.scale.item(), atol=1e-10)


def test_the_content_of_rows_holds_encoded_conditions():
    """Draws are keyed by it: how a category is numbered in a batch is one with its encoding."""
    cells, kind = torch.from_numpy(CELLS), torch.arange(N)[:, None] % 3
    batch = Batch(torch.cat([cells, kind], 1), torch.ones(N))
    content = Inputs(4, (3,)).content(batch)
    assert torch.equal(content, torch.cat([cells, torch.eye(3)[kind[:, 0]]], 1))
    plain = Batch(cells, batch.weight)
    assert Inputs(4).content(plain) is cells
