"""Tables as they are: categories, dates, whole numbers and missing cells, in and out."""

import itertools
import pickle

import numpy as np
import pandas as pd
import polars as pl
import polars.testing
import pytest
import torch
from scipy.special import logsumexp
from sklearn.compose import make_column_selector
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from sklearn.utils import get_tags
from small_models import AUTOENCODERS

import skae
from skae.nn.batch import Batch
from skae.training.batches import Batches

RNG = np.random.default_rng(0)
N = 160
QUICK = {"hidden_layer_sizes": (8,), "max_epochs": 4, "random_state": 0}
LINEAR = {
    "hidden_layer_sizes": (),
    "max_epochs": 0,
    "early_stopping": False,
    "random_state": 0,
    "precision": "float64",
}
Y = RNG.integers(-1, 2, N)
HIDDEN = RNG.normal(size=(N, 2))


def categories(levels, seed):
    """A column of categories that depend on two hidden numbers."""
    rng = np.random.default_rng(seed)
    logits = 2 * HIDDEN @ rng.normal(size=(2, len(levels))) + rng.gumbel(size=(N, len(levels)))
    return np.array(levels)[logits.argmax(1)]


def holes(seed, share=0.15):
    return np.random.default_rng(seed).random(N) < share


def pandas_table():
    frame = pd.DataFrame(
        {
            "age": np.exp(HIDDEN[:, 0]).astype(np.float32),
            "children": RNG.poisson(2, N),
            "rooms": pd.array(RNG.poisson(3, N), dtype="Int64"),
            "job": categories(["cook", "clerk", "nurse"], 1),
            "smoker": HIDDEN[:, 1] > 0.5,
            "size": pd.Categorical(categories(["M", "L", "S"], 2), ["S", "M", "L"], ordered=True),
            "since": pd.Timestamp("2020-01-05") + pd.to_timedelta(RNG.integers(0, 90, N), "D"),
            "lasts": pd.to_timedelta(RNG.integers(0, 900, N), "min"),
            "group": HIDDEN[:, 0] > 0,
        },
        index=np.arange(N) + 1000,
    )
    for seed, name in enumerate(["age", "rooms", "job", "size", "since"]):
        frame.loc[holes(seed), name] = pd.NA if name == "rooms" else None
    return frame


def polars_table():
    def with_holes(values, seed):
        gaps = holes(seed)
        return [None if gap else value for value, gap in zip(values, gaps, strict=True)]

    days = [pd.Timestamp("2020-01-05").date() + pd.Timedelta(days=int(d)) for d in range(N)]
    return pl.DataFrame(
        {
            "age": pl.Series(with_holes(np.exp(HIDDEN[:, 0]).tolist(), 0), dtype=pl.Float32),
            "children": pl.Series(RNG.poisson(2, N).tolist(), dtype=pl.Int16),
            "job": with_holes(categories(["cook", "clerk", "nurse"], 1).tolist(), 2),
            "smoker": (HIDDEN[:, 1] > 0.5).tolist(),
            "size": pl.Series(
                with_holes(categories(["M", "L", "S"], 2).tolist(), 3),
                dtype=pl.Enum(["S", "M", "L"]),
            ),
            "since": pl.Series(with_holes(days, 4), dtype=pl.Date),
            "group": (HIDDEN[:, 0] > 0).tolist(),
        }
    )


PANDAS, POLARS = pandas_table(), polars_table()
TABLES = [pytest.param(PANDAS, id="pandas"), pytest.param(POLARS, id="polars")]
COMPLETE = PANDAS.dropna()


def made(estimator_class, **parameters):
    """An autoencoder that is quick to fit, with a column of conditions where it has any."""
    own = {"condition": ["group"], "sensitive": ["group"], "n_codes": 4}
    own = {name: value for name, value in own.items() if name in estimator_class().get_params()}
    return estimator_class(**({"n_components": 2} | QUICK | own | parameters))


def trained(estimator_class, table, **parameters):
    y = Y[: len(table)] if estimator_class is skae.SemiSupervisedVariationalAutoencoder else None
    return made(estimator_class, **parameters).fit(table, y)


def is_missing(table):
    if isinstance(table, pd.DataFrame):
        return table.isna().to_numpy()
    return table.select(pl.all().is_null()).to_numpy()


def dtypes(table):
    return dict(table.dtypes) if isinstance(table, pd.DataFrame) else table.schema


# ------------------------------------------------------------------------------ every estimator


@pytest.mark.every_case
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("estimator_class", AUTOENCODERS)
def test_every_autoencoder_reads_and_writes_tables_as_they_are(estimator_class, table, tmp_path):
    model = trained(estimator_class, table)
    codes, nats = model.transform(table), model.score_samples(table)
    assert np.isfinite(codes).all()
    assert nats.shape == (N,)
    assert np.isfinite(nats).all()
    for result in (
        model.reconstruct(table),
        model.sample(7, random_state=0),
        model.sample(7, mean=True, random_state=0),
    ):
        assert type(result) is type(table)
        assert dtypes(result) == dtypes(table)
        assert not is_missing(result).any()
    errors = model.reconstruction_error(table, per_feature=True)
    known = is_missing(table)
    if model._fitted.schema.conditions:
        assert not errors[:, -1].any()
    np.testing.assert_array_equal(np.isnan(errors), known)
    np.testing.assert_allclose(np.nansum(errors, axis=1), model.reconstruction_error(table))
    completed = model.impute(table)
    assert not is_missing(completed).any()
    assert dtypes(completed) == dtypes(table)
    path = tmp_path / "model"
    model.save(path)
    for again in (skae.load(path), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(again.transform(table), codes)
        np.testing.assert_array_equal(again.score_samples(table), nats)
    y = () if estimator_class is not skae.SemiSupervisedVariationalAutoencoder else (Y,)
    model.partial_fit(table[:40], *(part[:40] for part in y))
    assert np.isfinite(model.transform(table)).all()


@pytest.mark.every_case
@pytest.mark.parametrize("estimator_class", AUTOENCODERS)
def test_a_category_that_fit_has_not_seen_is_a_missing_cell(estimator_class):
    model = trained(estimator_class, PANDAS)
    rows = COMPLETE[:5]
    other = rows.assign(job="pilot")
    missing = rows.assign(job=pd.array([None] * 5, dtype=rows["job"].dtype))
    np.testing.assert_array_equal(model.transform(other), model.transform(missing))
    np.testing.assert_array_equal(model.score_samples(other), model.score_samples(missing))
    # The category of the user is not a missing cell of her table.
    assert (model.impute(other)["job"] == "pilot").all()
    strict = made(estimator_class, categories=skae.Categories(handle_unknown="error"))
    y = Y if estimator_class is skae.SemiSupervisedVariationalAutoencoder else None
    with pytest.raises(ValueError, match=r"Column 'job' must hold categories .*'pilot'"):
        strict.fit(PANDAS, y).transform(other)


@pytest.mark.parametrize("table", TABLES)
def test_other_columns_are_named(table):
    model = trained(skae.Autoencoder, table)
    names = list(table.columns)
    with pytest.raises(ValueError, match="same order"):
        model.transform(table[names[::-1]])
    with pytest.raises(ValueError, match=r"(?s)now missing.*- job"):
        model.transform(table[[name for name in names if name != "job"]])
    rename = {"columns": {"job": "task"}} if isinstance(table, pd.DataFrame) else {"job": "task"}
    renamed = table.rename(**rename) if "columns" in rename else table.rename(rename)
    with pytest.raises(ValueError, match=r"(?s)unseen at fit time.*- task"):
        model.transform(renamed)
    for method in (model.transform, model.score_samples, model.impute):
        with pytest.raises((ValueError, TypeError), match=r"column|Column"):
            method(with_value(table, "children", "many"))


def with_value(table, name, value):
    """The table with one value in all cells of a column."""
    if isinstance(table, pd.DataFrame):
        return table.assign(**{name: value})
    return table.with_columns(pl.lit(value).alias(name))


def test_infinite_cells_are_refused():
    with pytest.raises(ValueError, match=r"Column 0 \('age'\) of X contains infinity in row 3"):
        made(skae.Autoencoder).fit(PANDAS.assign(age=np.where(np.arange(N) == 3, np.inf, 1.0)))


def test_object_arrays_are_read_as_frames_and_come_back_as_arrays():
    frame = PANDAS[["age", "children", "job", "smoker"]].astype(object)
    model = made(skae.Autoencoder).fit(frame.to_numpy())
    expected = made(skae.Autoencoder).fit(frame)
    np.testing.assert_array_equal(model.transform(frame.to_numpy()), expected.transform(frame))
    back = model.reconstruct(frame.to_numpy())
    assert isinstance(back, np.ndarray)
    assert back.tolist() == expected.reconstruct(frame).to_numpy().tolist()
    assert {*back[:, 2]} <= {"cook", "clerk", "nurse"}


def test_object_arrays_of_dates_and_numbers():
    frame = PANDAS[["age", "since"]].astype({"age": float})
    array = np.column_stack([frame["age"].astype(object), frame["since"].astype(object)])
    model = made(skae.Autoencoder).fit(array)
    np.testing.assert_array_equal(
        model.transform(array), made(skae.Autoencoder).fit(frame).transform(frame)
    )
    back = pd.Series(model.reconstruct(array)[:, 1].astype("datetime64[ns]"))
    assert back.between(frame["since"].min(), frame["since"].max()).all()


def test_whole_numbers_and_dates_stay_within_the_range_of_the_fit():
    model = trained(skae.Autoencoder, PANDAS)
    rows = model.sample(500, random_state=0)
    for name in ("children", "rooms", "since", "lasts"):
        assert PANDAS[name].min() <= rows[name].min()
        assert rows[name].max() <= PANDAS[name].max()
    assert (rows["since"].dt.normalize() == rows["since"]).all()
    assert (rows["lasts"].dt.total_seconds() % 60 == 0).all()


def test_frames_of_numbers_have_the_results_of_arrays():
    frame = pd.DataFrame({"a": HIDDEN[:, 0], "b": 2 * HIDDEN[:, 1], "c": RNG.poisson(3, N)})
    of_frame = made(skae.Autoencoder).fit(frame)
    of_array = made(skae.Autoencoder).fit(frame.to_numpy())
    for method in ("transform", "score_samples", "reconstruction_error"):
        expected = getattr(of_array, method)(frame.to_numpy())
        np.testing.assert_array_equal(getattr(of_frame, method)(frame), expected)
    back, expected = of_frame.reconstruct(frame), of_array.reconstruct(frame.to_numpy())
    pd.testing.assert_series_equal(back.dtypes, frame.dtypes)
    np.testing.assert_array_equal(back[["a", "b"]], expected[:, :2])
    np.testing.assert_array_equal(back["c"], expected[:, 2].round().clip(0, frame["c"].max()))


def test_a_column_without_any_cell_stays():
    frame = PANDAS[["age", "job"]].assign(empty=np.nan, nothing=pd.Series(dtype="str"))
    model = made(skae.Autoencoder).fit(frame)
    back = model.reconstruct(frame)
    pd.testing.assert_series_equal(back.dtypes, frame.dtypes)
    assert back[["empty", "nothing"]].isna().all(axis=None)
    assert np.isfinite(model.score_samples(frame)).all()
    assert model.impute(frame)[["empty", "nothing"]].isna().all(axis=None)


def test_cells_of_one_kind_in_pipelines_and_copies():
    pipeline = make_pipeline(FunctionTransformer(), made(skae.Autoencoder)).fit(PANDAS)
    assert pipeline.transform(PANDAS).shape == (N, 2)
    assert pipeline.set_output(transform="pandas").transform(PANDAS).index[0] == 1000
    assert pipeline[-1].reconstruct(PANDAS).index[0] == 1000


# ------------------------------------------------------------------------------------ identities


def subspace_cosines(A, B):
    """Cosines of the angles between the spaces that the columns of two tables span."""
    bases = [np.linalg.qr(part - part.mean(0))[0] for part in (A, B)]
    return np.linalg.svd(bases[0].T @ bases[1])[1]


def mixed_factors(frame, k):
    """The leading factors of rows in factor analysis of mixed data, by a decomposition."""
    numbers = frame.select_dtypes("number")
    parts = [((numbers - numbers.mean()) / numbers.std(ddof=0)).to_numpy()]
    onehot = OneHotEncoder(sparse_output=False).fit_transform(frame.drop(columns=numbers.columns))
    share = onehot.mean(0)
    table = np.hstack([*parts, (onehot - share) / np.sqrt(share)])
    left, values, _ = np.linalg.svd(table, full_matrices=False)
    return (left * values)[:, :k]


@pytest.mark.parametrize(
    "names", [["job", "size", "smoker"], ["age", "children", "job", "size", "smoker"]]
)
def test_a_linear_model_starts_at_factor_analysis_of_mixed_data(names):
    """With categories alone, this is multiple correspondence analysis."""
    frame = COMPLETE[names].astype({"size": str, "smoker": str})
    codes = skae.Autoencoder(3, **LINEAR).fit(frame).transform(frame)
    expected = mixed_factors(frame, 3)
    np.testing.assert_allclose(subspace_cosines(codes, expected), 1, atol=1e-9)
    variances = np.sort(codes.var(axis=0))[::-1]
    np.testing.assert_allclose(variances, expected.var(axis=0), rtol=1e-6)


def numbers_with_gaps(n=400, share=0.2, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2)) @ rng.normal(size=(2, 6)) + 0.3 * rng.normal(size=(n, 6)) + 5
    gaps = rng.random(X.shape) < share
    return X, np.where(gaps, np.nan, X), gaps


def row_mean(model):
    """The mean row of the density of a linear model."""
    fitted = model._fitted
    code = fitted.density.prior.mean.numpy() - fitted.components.offset
    return model.inverse_transform((code * fitted.components.scale)[None])[0]


def observed_log_density(row, mean, covariance):
    known = ~np.isnan(row)
    part, rest = covariance[known][:, known], row[known] - mean[known]
    return -0.5 * (rest @ np.linalg.solve(part, rest) + np.linalg.slogdet(2 * np.pi * part)[1])


def test_the_density_of_a_linear_model_is_the_normal_one_of_observed_cells():
    X, table, _ = numbers_with_gaps()
    model = skae.Autoencoder(2, **LINEAR).fit(table)
    mean, covariance = row_mean(model), model.get_covariance()
    expected = [observed_log_density(row, mean, covariance) for row in table]
    np.testing.assert_allclose(model.score_samples(table), expected, rtol=1e-6)
    np.testing.assert_allclose(mean, X.mean(0), atol=0.3)


def test_a_row_with_a_missing_cell_has_the_integral_over_this_cell():
    X = numbers_with_gaps()[0]
    model = skae.Autoencoder(2, **LINEAR).fit(X)
    grid = np.linspace(-20, 30, 5001)
    rows = np.repeat(X[:1], len(grid), axis=0)
    rows[:, 3] = grid
    missing = X[:1].copy()
    missing[0, 3] = np.nan
    integral = np.log(np.trapezoid(np.exp(model.score_samples(rows)), grid))
    np.testing.assert_allclose(model.score_samples(missing), integral, rtol=1e-9)


def test_a_curved_model_integrates_over_a_missing_cell_approximately():
    X = np.tanh(numbers_with_gaps()[0] - 5)
    model = skae.Autoencoder(2, max_epochs=20, random_state=0, precision="float64").fit(X)
    grid = np.linspace(-6, 6, 2001)
    for row in X[:5]:
        rows = np.repeat(row[None], len(grid), axis=0)
        rows[:, 1] = grid
        missing = row.copy()
        missing[1] = np.nan
        integral = np.log(np.trapezoid(np.exp(model.score_samples(rows)), grid))
        np.testing.assert_allclose(model.score_samples(missing[None]), integral, atol=0.01)


def test_the_integral_over_a_code_is_that_of_a_grid():
    frame = pd.DataFrame(
        {name: categories(levels, i) for i, (name, levels) in enumerate(SMALL.items())}
    )
    frame["d"] = frame["a"] + frame["b"]
    model = made(skae.Autoencoder, n_components=1, max_epochs=60).fit(frame)
    fitted = model._fitted
    prior = fitted.density.prior
    width = float(prior.covariance) ** 0.5
    z = prior.mean + torch.linspace(-8, 8, 4001).double()[:, None] * width
    rows = fitted.schema.read(frame[:20]).values
    batch = Batch(torch.tensor(rows, dtype=fitted.network.like.dtype), torch.ones(20))
    with torch.inference_mode():
        out = fitted.network.outputs(z[:, None].expand(-1, 20, 1).to(batch.x), batch)
        log_joint = fitted.density.likelihood.log_prob(batch, out) + prior.log_prob(z)[:, None]
    expected = np.log(np.trapezoid(log_joint.exp().numpy(), z[:, 0].numpy(), axis=0))
    np.testing.assert_allclose(model.score_samples(frame[:20]), expected, atol=0.02)


CODED = [
    skae.Autoencoder,
    skae.SparseAutoencoder,
    skae.WassersteinAutoencoder,
    skae.VectorQuantizedAutoencoder,
    skae.VariationalAutoencoder,
]


@pytest.mark.parametrize("estimator_class", CODED)
def test_masses_of_all_rows_of_a_small_table_sum_to_one(estimator_class):
    frame = pd.DataFrame(
        {name: categories(levels, i) for i, (name, levels) in enumerate(SMALL.items())}
    )
    model = made(estimator_class, max_epochs=30).fit(frame)
    rows = pd.DataFrame(list(itertools.product(*SMALL.values())), columns=list(SMALL))
    mass = np.exp(logsumexp(model.score_samples(rows)))
    limit = 1e-6 if estimator_class is skae.VectorQuantizedAutoencoder else 0.02
    assert mass == pytest.approx(1, abs=limit)


SMALL = {"a": list("xyz"), "b": list("pq"), "c": list("uvwt")}


def test_codes_with_a_cell_missing_at_transform_alone_are_the_most_probable_ones():
    X = numbers_with_gaps()[0]
    model = skae.Autoencoder(2, **LINEAR).fit(X)
    row = X[:1].copy()
    row[0, [1, 4]] = np.nan
    known = ~np.isnan(row[0])
    axes, mean = model.components_, model.mean_
    noise, prior = model.noise_variance_, np.diag(model.explained_variance_ - model.noise_variance_)
    part = axes[:, known].T
    precision = part.T @ part / noise + np.linalg.inv(prior)
    expected = np.linalg.solve(precision, part.T @ (row[0] - mean)[known] / noise)
    np.testing.assert_allclose(model.transform(row)[0], expected, rtol=1e-6)
    complete = model.transform(X[1:5])
    both = model.transform(np.vstack([row, X[1:5]]))
    np.testing.assert_allclose(both[1:], complete, rtol=1e-12)
    np.testing.assert_allclose(both[0], expected, rtol=1e-6)


def test_the_weight_of_a_row_is_the_number_of_its_repetitions():
    frame, weight = PANDAS[:60], np.arange(60) % 3
    options = {"early_stopping": False, "precision": "float64"}
    weighted = made(skae.Autoencoder, **options).fit(frame, sample_weight=weight)
    repeated = made(skae.Autoencoder, **options).fit(frame.iloc[np.repeat(np.arange(60), weight)])
    np.testing.assert_allclose(weighted.transform(frame), repeated.transform(frame), rtol=1e-6)
    np.testing.assert_allclose(
        weighted.score_samples(frame), repeated.score_samples(frame), rtol=1e-6
    )


def test_levels_of_rows_without_weight_do_not_count():
    frame = COMPLETE[["age", "job"]].assign(job=["pilot", *COMPLETE["job"][1:]])
    weight = np.r_[0.0, np.ones(len(frame) - 1)]
    model = made(skae.Autoencoder).fit(frame, sample_weight=weight)
    expected = made(skae.Autoencoder).fit(frame[1:])
    np.testing.assert_array_equal(model.transform(frame), expected.transform(frame))


# ---------------------------------------------------------------------------------- missing cells


@pytest.mark.parametrize("table", TABLES)
def test_observed_cells_are_not_touched_by_impute(table):
    model = trained(skae.Autoencoder, table)
    before = table.copy() if isinstance(table, pd.DataFrame) else table.clone()
    tables = [model.impute(table), *model.impute(table, n_draws=3, random_state=0)]
    for completed in tables:
        known = ~is_missing(table)
        for j, name in enumerate(table.columns):
            own, new = (np.asarray(part[name])[known[:, j]] for part in (table, completed))
            np.testing.assert_array_equal(own, new)
        assert not is_missing(completed).any()
    if isinstance(table, pd.DataFrame):
        pd.testing.assert_frame_equal(table, before)
        pd.testing.assert_index_equal(tables[0].index, table.index)
    else:
        pl.testing.assert_frame_equal(table, before)
    again = model.impute(table, n_draws=3, random_state=0)
    same = pd.testing if isinstance(table, pd.DataFrame) else pl.testing
    for one, two in zip(again, tables[1:], strict=True):
        same.assert_frame_equal(one, two)


def test_complete_tables_are_returned_unchanged():
    model = trained(skae.Autoencoder, PANDAS)
    pd.testing.assert_frame_equal(model.impute(COMPLETE), COMPLETE)
    for drawn in model.impute(COMPLETE, n_draws=2):
        pd.testing.assert_frame_equal(drawn, COMPLETE)
    X = numbers_with_gaps()[0]
    numbers = made(skae.Autoencoder).fit(X)
    np.testing.assert_array_equal(numbers.impute(X), X)


def test_a_linear_model_imputes_conditional_means():
    X, table, gaps = numbers_with_gaps()
    model = skae.Autoencoder(2, **LINEAR).fit(table)
    mean, covariance = row_mean(model), model.get_covariance()
    completed = model.impute(table)
    for row, gap, result in zip(table[:50], gaps[:50], completed[:50], strict=True):
        known = ~gap
        part = covariance[known][:, known]
        expected = mean[gap] + covariance[gap][:, known] @ np.linalg.solve(
            part, row[known] - mean[known]
        )
        np.testing.assert_allclose(result[gap], expected, rtol=1e-5)
    assert np.abs(completed - X)[gaps].mean() < 0.6 * np.abs(X - X.mean(0))[gaps].mean()


@pytest.mark.parametrize(
    "model",
    [
        skae.Autoencoder(2, hidden_layer_sizes=(), max_epochs=20, random_state=0),
        skae.VariationalAutoencoder(2, random_state=0),
    ],
)
def test_intervals_of_draws_cover_hidden_numbers(model):
    X, table, gaps = numbers_with_gaps(1500, seed=3)
    model.fit(table)
    drawn = np.stack(model.impute(table, n_draws=200, random_state=0))
    low, high = np.quantile(drawn[:, gaps], [0.05, 0.95], axis=0)
    assert 0.87 <= ((low <= X[gaps]) & (X[gaps] <= high)).mean() <= 0.93


@pytest.mark.parametrize("n_draws", [0, -1, 1.5, "a"])
def test_invalid_numbers_of_draws(n_draws):
    with pytest.raises(ValueError, match="n_draws must be an integer"):
        trained(skae.Autoencoder, PANDAS).impute(PANDAS, n_draws=n_draws)


def test_impute_needs_a_fit():
    with pytest.raises(NotFittedError):
        skae.Autoencoder().impute(PANDAS)


def test_rows_without_any_observed_cell():
    X = numbers_with_gaps()[0]
    empty = np.full((1, 6), np.nan)
    model = skae.Autoencoder(2, **LINEAR).fit(X)
    np.testing.assert_allclose(model.impute(empty)[0], X.mean(0), rtol=1e-6)
    np.testing.assert_allclose(model.score_samples(empty), 0, atol=1e-9)
    with pytest.raises(ValueError, match="All cells of X are missing"):
        made(skae.Autoencoder).fit(np.full((5, 2), np.nan))


def test_missing_cells_do_not_count_in_noise_and_centers():
    X, table, _ = numbers_with_gaps(2000)
    gapped = skae.Autoencoder(2, **LINEAR).fit(table)
    complete = skae.Autoencoder(2, **LINEAR).fit(X)
    assert gapped.noise_variance_ == pytest.approx(complete.noise_variance_, rel=0.05)
    np.testing.assert_allclose(row_mean(gapped), row_mean(complete), atol=0.05)


def test_training_of_deterministic_codes_hides_cells_where_some_are_missing():
    X, table, gaps = numbers_with_gaps()
    assert captured_batches(X)[0].visible is None
    batches = captured_batches(table)
    hidden = np.concatenate([(~batch.visible & batch.observed).numpy() for batch in batches])
    assert hidden.mean() == pytest.approx(gaps.mean() * (1 - gaps.mean()), rel=0.1)
    for batch in batches:
        assert not (batch.visible & ~batch.observed).any()


def captured_batches(table, **parameters):
    """The batches on which an autoencoder is trained."""
    found = []
    corrupt = Batches._corrupt_batch

    def noted(self, batch, generator):
        result = corrupt(self, batch, generator)
        found.append(result)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batches, "_corrupt_batch", noted)
        made(skae.Autoencoder, **parameters).fit(table)
    assert all(isinstance(batch, Batch) for batch in found)
    return found


def test_masking_hides_cells_of_tables_with_categories():
    frame = COMPLETE[["age", "children", "job", "smoker"]]
    batches = captured_batches(frame, corruption="masking", corruption_level=0.4)
    hidden = np.concatenate([(~batch.visible).numpy() for batch in batches])
    assert hidden.mean() == pytest.approx(0.4, abs=0.05)
    assert all(batch.clean is None for batch in batches)


@pytest.mark.parametrize("corruption", ["gaussian", "salt_and_pepper", "swap"])
def test_corrupted_categories_are_those_of_other_rows(corruption):
    frame = COMPLETE[["age", "children", "job", "smoker"]]
    batches, changed = captured_batches(frame, corruption=corruption, corruption_level=0.5), []
    for batch in batches:
        cells, clean = batch.x[:, 2:].numpy(), batch.clean[:, 2:].numpy()
        assert (np.isin(cells, np.arange(3)) & (cells == cells.round())).all()
        changed.append(cells != clean)
        assert (batch.x[:, :2] != batch.clean[:, :2]).numpy().mean() > 0.2
    assert 0.05 < np.concatenate(changed).mean() < 0.5


def test_missing_cells_of_corrupted_rows_are_hidden():
    X, table, _ = numbers_with_gaps()
    model = made(skae.Autoencoder).fit(X, X_corrupted=table)
    assert np.isfinite(model.transform(table)).all()
    assert model.reconstruction_error(X).mean() < X.var(0).sum()


# ------------------------------------------------------------------------------------ parameters


def test_likelihoods_by_columns():
    frame = COMPLETE[["age", "children", "job", "smoker"]].assign(share=RNG.random(len(COMPLETE)))
    model = made(
        skae.Autoencoder,
        likelihood={"bernoulli": ["smoker", "share"], "gaussian": make_column_selector("ag.*")},
    ).fit(frame)
    schema = model._fitted.schema
    found = dict(zip(frame.columns[schema.modelled], schema.likelihoods, strict=True))
    assert found == {
        "age": "gaussian",
        "children": "gaussian",
        "job": "categorical",
        "smoker": "bernoulli",
        "share": "bernoulli",
    }
    back = model.sample(50, mean=True, random_state=0)
    assert back["share"].between(0, 1).all()
    assert back["smoker"].dtype == bool
    with pytest.raises(ValueError, match="Column 'job' holds categories, which the likelihood"):
        made(skae.Autoencoder, likelihood="gaussian").fit(frame)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        made(skae.Autoencoder, likelihood={"bernoulli": ["age"]}).fit(frame)


def test_infrequent_categories_share_a_level():
    rare = np.where(np.arange(N) == 5, "pilot", PANDAS["smoker"].map({True: "cook", False: "maid"}))
    frame = pd.DataFrame({"job": rare, "age": HIDDEN[:, 0]})
    frame.loc[9, "job"] = "judge"
    model = made(skae.Autoencoder, categories=skae.Categories(min_frequency=3)).fit(frame)
    codes = model.transform(frame.iloc[[5, 5]].assign(job=["pilot", "judge"]))
    np.testing.assert_array_equal(*codes)
    assert {*model.sample(500, random_state=0)["job"]} <= {"cook", "maid", "infrequent"}


def test_noise_variances_are_in_the_order_of_the_columns():
    frame = COMPLETE[["job", "age", "smoker", "children"]].assign(
        wide=1e6 * HIDDEN[: len(COMPLETE), 1]
    )
    model = made(skae.Autoencoder, max_epochs=0).fit(frame)
    noise = model.noise_variance_
    assert noise.shape == (5,)
    assert (noise[[0, 2]] == 0).all()
    for j, name in ((1, "age"), (3, "children"), (4, "wide")):
        assert 4e-4 <= noise[j] / frame[name].var(ddof=0) < 2


def test_the_noise_of_columns_with_equal_cells_stays_bounded():
    """Without a bound, the density of a column that the decoder reproduces would be infinite."""
    gain = np.where(RNG.random(N) < 0.9, 0.0, RNG.exponential(1e4, N))
    frame = pd.DataFrame({"gain": gain, "copy": gain, "job": categories(["a", "b"], 5)})
    model = skae.VariationalAutoencoder(2, max_epochs=60, random_state=0).fit(frame)
    assert (model.noise_variance_[:2] >= 0.99 * 4e-4 * gain.var()).all()


def test_what_is_not_supported_for_categories_is_refused():
    model = trained(skae.Autoencoder, PANDAS)
    for method in (model.encoder_jacobian, model.decoder_jacobian, model.integrated_gradients):
        with pytest.raises(ValueError, match="columns of X hold categories"):
            method(PANDAS)
    with pytest.raises(ValueError, match="columns have several kinds"):
        made(skae.Autoencoder, tied_weights=True).fit(PANDAS)
    with pytest.raises(ValueError, match="column 3"):
        made(
            skae.Autoencoder,
            architecture="conv",
            feature_shape=(1, 3, 3),
            hidden_layer_sizes=(2,),
        ).fit(PANDAS)


def test_tied_weights_with_missing_numbers():
    _, table, _ = numbers_with_gaps()
    model = made(skae.Autoencoder, tied_weights=True).fit(table)
    assert np.isfinite(model.transform(table)).all()


@pytest.mark.parametrize(
    ("parameters", "allow_nan", "string"),
    [
        ({}, True, True),
        ({"likelihood": "gaussian"}, True, False),
        ({"architecture": "conv", "feature_shape": (1, 2, 2)}, False, False),
    ],
)
def test_tags_say_what_tables_may_hold(parameters, allow_nan, string):
    tags = get_tags(skae.Autoencoder(**parameters)).input_tags
    assert (tags.allow_nan, tags.string, tags.categorical) == (allow_nan, string, string)


def test_conditions_must_be_observed():
    model = skae.FairAutoencoder(sensitive=["age"])
    assert not get_tags(model).input_tags.allow_nan
    with pytest.raises(ValueError, match=r"Column 'age' contains NaN .* Conditions must not be"):
        model.fit(PANDAS)
    model = made(skae.FairAutoencoder, sensitive=["group"]).fit(PANDAS)
    with pytest.raises(ValueError, match=r"Column 'group' contains NaN .* Conditions must not be"):
        model.transform(PANDAS.assign(group=np.where(PANDAS["group"], True, None)))


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    ("estimator_class", "parameter"),
    [
        (skae.ConditionalVariationalAutoencoder, "condition"),
        (skae.FairAutoencoder, "sensitive"),
    ],
)
def test_missing_categories_of_a_condition_are_a_level(estimator_class, parameter, table, tmp_path):
    model = made(estimator_class, **{parameter: ["job"]}).fit(table)
    (column,) = model._fitted.schema.conditions
    assert column.n_levels == 4
    rebuilt = model.reconstruct(table)
    assert dtypes(rebuilt) == dtypes(table)
    assert [*map(str, rebuilt["job"])] == [*map(str, table["job"])]
    model.save(tmp_path / "model.skae")
    codes = skae.load(tmp_path / "model.skae").transform(table)
    np.testing.assert_array_equal(codes, model.transform(table))
    # The level is a category as any other: codes may depend on it, and rows may be drawn from it.
    drawn = model.sample(50, random_state=0)
    assert set(map(str, drawn["job"])) <= set(map(str, table["job"]))


@pytest.mark.parametrize("table", TABLES)
def test_all_rows_may_lack_a_condition_whose_missing_cells_are_a_level(table):
    model = made(skae.ConditionalVariationalAutoencoder, condition=["job"]).fit(table)
    lacking = np.flatnonzero([cell is None or cell != cell for cell in table["job"]])
    codes = model.transform(table)
    rows = table.iloc[lacking] if isinstance(table, pd.DataFrame) else table[lacking]
    np.testing.assert_allclose(model.transform(rows[:1]), codes[lacking[:1]], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.transform(rows), codes[lacking], rtol=1e-4, atol=1e-6)
    for condition in ({"job": None}, [None], rows[:5][["job"]]):
        drawn = model.sample(5, condition=condition, random_state=0)
        assert is_missing(drawn[["job"]]).all()
    observed = made(skae.ConditionalVariationalAutoencoder, condition=["job"]).fit(COMPLETE)
    for call in (
        lambda: observed.sample(5, condition={"job": None}),
        lambda: observed.transform(COMPLETE[:1].assign(job=None)),
    ):
        with pytest.raises(ValueError, match=r"Column 'job' contains NaN .* Conditions must not"):
            call()
    with pytest.raises(ValueError, match="Column 'job' has no observed cell, so that it cannot be"):
        observed.fit(COMPLETE.assign(job=None))


def test_a_category_named_missing_is_another_one_than_missing_cells():
    job = pd.Series(["cook", "missing", None, None] * 30)
    frame = pd.DataFrame({"job": job, "x": np.arange(120.0), "y": np.arange(120.0) % 7})
    model = made(skae.FairAutoencoder, sensitive=["job"], n_components=1).fit(frame)
    (column,) = model._fitted.schema.conditions
    classes = column.classes(column.encode_condition(frame, 0))
    assert classes.tolist() == ["cook", "missing", "missing_", "missing_"] * 30
    # Without any code, the most frequent class is right for half of the rows.
    assert model.audit(frame).loc[("job", "linear", "accuracy"), "nothing"] == 0.5


def test_validation_rows_are_not_held_out_if_most_rows_repeat():
    """Three binary columns have eight kinds of rows, of which one may hold half the weight."""
    rng = np.random.default_rng(0)
    flags = pd.DataFrame(rng.random((400, 3)) < 0.3, columns=list("abc"))
    chosen = {"auto": False, True: True}
    for early_stopping, holds_out in chosen.items():
        model = made(skae.Autoencoder, early_stopping=early_stopping).fit(flags)
        assert bool(model.validation_curve_) == holds_out
    distinct = flags.assign(x=rng.normal(size=400))
    assert made(skae.Autoencoder).fit(distinct).validation_curve_


@pytest.mark.parametrize("weight", [np.full(N, 3), 0.5 + np.arange(N) % 40, np.arange(N) % 2])
def test_validation_rows_are_held_out_if_weights_are_no_repetitions(weight):
    model = made(skae.Autoencoder).fit(PANDAS, sample_weight=weight)
    assert model.validation_curve_
    flags = PANDAS[["smoker", "group"]]
    assert not made(skae.Autoencoder).fit(flags, sample_weight=weight).validation_curve_


@pytest.mark.parametrize("count", [np.full(N, 3), np.arange(N) % 7 + 1], ids=["equal", "unequal"])
def test_whole_weights_are_repetitions_for_the_choice_of_validation_rows(count):
    weighted = made(skae.Autoencoder).fit(PANDAS, sample_weight=count)
    repeated = made(skae.Autoencoder).fit(PANDAS.loc[PANDAS.index.repeat(count)])
    assert len(weighted.validation_curve_) == len(repeated.validation_curve_)
    assert bool(len(weighted.validation_curve_)) == (count == 3).all()


def test_fits_that_resume_keep_the_columns_of_the_first_fit():
    model = made(skae.Autoencoder, warm_start=True).fit(PANDAS)
    levels = [column.levels for column in model._fitted.schema.columns]
    model.fit(PANDAS.assign(job="pilot"))
    again = [column.levels for column in model._fitted.schema.columns]
    assert all(np.array_equal(a, b) for a, b in zip(levels, again, strict=True))
    grown = model.set_params(n_components=3).fit(PANDAS)
    assert grown.transform(PANDAS).shape == (N, 3)


@pytest.mark.parametrize("step", ["fit", "partial_fit"])
@pytest.mark.parametrize(
    "task",
    [skae.AutoencoderClassifier, skae.AutoencoderRegressor, skae.AutoencoderOutlierDetector],
)
def test_tasks_do_not_resume_with_another_condition(task, step):
    autoencoder = made(skae.ConditionalVariationalAutoencoder, condition=["job"], warm_start=True)
    model, y = task(autoencoder, random_state=0), np.arange(N) % 2
    train = getattr(model, step)
    train(PANDAS, y)
    fitted = train(PANDAS, y)._fitted
    model.set_params(autoencoder__condition=["size"])
    with pytest.raises(
        ValueError, match=r"condition=\['size'\] selects the columns \[5\], but the"
    ):
        train(PANDAS, y)
    assert model._fitted is fitted


def test_advice_to_scale_columns_is_given_where_it_helps():
    """The network scales the columns of tables of several kinds, and categories have no scale."""
    slow = {"learning_rate": 1e-12, "max_epochs": 200, "early_stopping": False}
    numbers = COMPLETE[["age", "children", "rooms"]].astype(float)
    categories = PANDAS[["job", "size", "smoker"]]
    for table, has_advice in ((numbers, True), (categories, False), (PANDAS, False)):
        with pytest.warns(ConvergenceWarning, match="did not improve") as found:
            made(skae.Autoencoder, **slow).fit(table)
        assert ("StandardScaler" in str(found[0].message)) == has_advice


def test_a_share_of_the_variance_is_that_of_factor_analysis_of_mixed_data():
    frame = COMPLETE[["age", "children", "job", "size", "smoker"]].astype({"smoker": str})
    frame = frame.astype({"size": str})
    variances = np.linalg.svd(mixed_factors(frame, 9))[1] ** 2
    share = (variances.cumsum() / variances.sum())[2]
    assert skae.Autoencoder(share - 0.01, **LINEAR).fit(frame).n_components_ == 3
    assert skae.Autoencoder(share + 0.01, **LINEAR).fit(frame).n_components_ == 4
    with pytest.raises(ValueError, match="'mle' is not supported for tables whose columns"):
        skae.Autoencoder("mle", **LINEAR).fit(frame)


def test_training_does_not_resume_with_another_likelihood():
    frame = COMPLETE[["smoker", "group"]]
    model = made(skae.Autoencoder, warm_start=True).fit(frame)
    codes = model.transform(frame)
    with pytest.raises(ValueError, match="likelihood"):
        model.set_params(likelihood="bernoulli").fit(frame)
    np.testing.assert_array_equal(model.transform(frame), codes)


def test_selections_of_columns_are_saved_as_what_they_select(tmp_path):
    likelihood = {"bernoulli": make_column_selector("smo.*")}
    model = made(skae.Autoencoder, likelihood=likelihood).fit(COMPLETE)
    with pytest.warns(UserWarning, match="likelihood"):
        model.save(tmp_path / "model")
    again = skae.load(tmp_path / "model")
    np.testing.assert_array_equal(again.transform(COMPLETE), model.transform(COMPLETE))


def test_components_of_linear_models_fit_their_reconstructions():
    _, table, _ = numbers_with_gaps()
    model = skae.Autoencoder(2, **LINEAR).fit(table)
    codes = RNG.normal(size=(5, 2))
    expected = model.inverse_transform(codes)
    np.testing.assert_allclose(model.mean_, model.inverse_transform(np.zeros((1, 2)))[0])
    np.testing.assert_allclose(codes @ model.components_ + model.mean_, expected)


def test_new_categories_are_never_far_away():
    frame = pd.DataFrame({"job": ["a"] * 500 + ["m", "z"], "x": RNG.normal(size=502)})
    model = made(skae.Autoencoder).partial_fit(frame)
    model.partial_fit(pd.DataFrame({"job": ["z"] * 100, "x": RNG.normal(size=100)}))
    with pytest.warns(UserWarning, match="The new rows are far .* column 1"):
        model.partial_fit(pd.DataFrame({"job": ["z"] * 100, "x": 1e6 + RNG.normal(size=100)}))


def test_a_column_that_identifies_rows_is_named():
    frame = pd.DataFrame({"id": [f"u{i}" for i in range(N)], "x": HIDDEN[:, 0]})
    with pytest.warns(UserWarning, match="Most categories of column 'id' occur once"):
        made(skae.Autoencoder).fit(frame)


def test_names_that_occur_twice_are_refused():
    frame = PANDAS.set_axis([*PANDAS.columns[1:], "job"], axis=1)
    with pytest.raises(ValueError, match="unique column names, got 'job' 2 times"):
        made(skae.Autoencoder).fit(frame)


def test_scales_that_are_too_small_are_named():
    frame = COMPLETE[["job"]].assign(x=HIDDEN[: len(COMPLETE), 0] * 1e-25)
    with pytest.raises(ValueError, match=r"Column 1 \('x'\) of X has a variance"):
        made(skae.Autoencoder, precision="float32").fit(frame)
    assert np.isfinite(made(skae.Autoencoder).fit(frame).score_samples(frame)).all()


def test_swapped_cells_are_never_those_that_are_missing():
    model = made(skae.DenoisingAutoencoder, corruption="swap", corruption_level=0.5).fit(PANDAS)
    assert np.isfinite(model.score_samples(PANDAS)).all()
    for batch in captured_batches(PANDAS, corruption="swap", corruption_level=0.5):
        assert not batch.x[batch.observed].isnan().any()


def test_pretraining_of_layers():
    model = made(skae.Autoencoder, layerwise_epochs=2, hidden_layer_sizes=(8, 4)).fit(PANDAS)
    assert np.isfinite(model.score_samples(PANDAS)).all()
