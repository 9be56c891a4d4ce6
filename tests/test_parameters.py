"""`Declared`: parameters stated once as fields; constructor, clone and documentation follow."""

import ast
import inspect
import re
from dataclasses import field
from numbers import Integral, Real
from typing import ClassVar

import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.utils._param_validation import InvalidParameterError

import skae
from skae import Autoencoder, SemiSupervisedVariationalAutoencoder
from skae._compat.sklearn import Interval, validate_parameters
from skae.base import BaseAutoencoder
from skae.parameters import Declared

PUBLIC = [getattr(skae, name) for name in skae.__all__]
ESTIMATORS = [
    c for c in PUBLIC if isinstance(c, type) and issubclass(c, Declared) and hasattr(c, "fit")
]


class Parent(Declared, BaseEstimator):
    """First of all.

    Parameters
    ----------
    size : int, default=3
        How large.

        A second paragraph.

    name : str, default="a"
        What it is called.

    Attributes
    ----------
    size_ : int
        How large it became.
    """

    size: int = field(default=3, kw_only=False)
    name: str = "a"

    _parameter_constraints: ClassVar = {
        "size": [Interval(Integral, 1, None, closed="left")],
        "name": [str],
    }

    def draw(self, n, scale=1.0, seed=None):
        """Draw numbers.

        They are random.

        Parameters
        ----------
        n : int
            How many.

            A second paragraph.
        scale : float, default=1.0
            How large.
        seed : int, default=None
            Which ones.

        Returns
        -------
        numbers : list
            The numbers.

        Raises
        ------
        ValueError
            Where `n` is negative: none are drawn.
        TypeError
            Where `n` is no number.

        Examples
        --------
        >>> 2 + 2
        4
        """

    def tell(self, X, y):
        """Tell something.

        Parameters
        ----------
        X, y : list
            Two things.
        """

    def _hidden(self):
        """Nothing to inherit."""


class Child(Parent):
    """Second of all.

    A longer text.

    Parameters
    ----------
    extra : float, default=0.5
        What the child adds.

    name : str, default="b"
        What the child is called.

    Attributes
    ----------
    extra_ : float
        What it learnt.

    Examples
    --------
    >>> 1 + 1
    2
    """

    name: str = "b"
    extra: float = 0.5

    _parameter_constraints: ClassVar = {"extra": [Interval(Real, 0, 1, closed="both")]}

    def draw(self, first, n, scale=2.0):
        """Draw other numbers.

        Parameters
        ----------
        first : float
            With which to begin.
        scale : float, default=2.0
            How very large.

        Raises
        ------
        ValueError
            Where `first` is infinite.
        """

    def tell(self, X, y):
        pass

    def _hidden(self):
        pass


def section(doc, title):
    """The body of a numpydoc section."""
    after = doc.split(f"{title}\n{'-' * len(title)}\n")
    assert len(after) == 2, f"{title} occurs {len(after) - 1} times"
    lines = after[1].splitlines()
    ends = [i for i, line in enumerate(lines) if line and set(line) == {"-"}]
    return "\n".join(lines[: ends[0] - 1] if ends else lines)


def test_parameters_are_keyword_only_unless_a_field_says_otherwise():
    assert Parent(5).size == 5
    assert Child(5).size == 5
    with pytest.raises(TypeError):
        Child(5, "c")
    assert Child(name="c").name == "c"
    with pytest.raises(TypeError):
        Child(unknown=1)


def test_scikit_learn_finds_the_parameters():
    assert Child().get_params() == {"size": 3, "name": "b", "extra": 0.5}
    changed = clone(Child(7)).set_params(extra=1.0)
    assert changed.get_params() == {"size": 7, "name": "b", "extra": 1.0}
    assert repr(Child(7)) == "Child(size=7)"


def test_constructor_only_stores():
    thing = object()
    child = Child(name=thing)
    assert child.name is thing
    assert vars(child) == {"size": 3, "name": thing, "extra": 0.5}
    assert child != Child(name=thing)
    assert hash(child) != hash(Child(name=thing))


def test_documentation_is_inherited():
    doc = Child.__doc__
    assert doc.startswith("Second of all.\n\nA longer text.\n")
    parameters = section(doc, "Parameters")
    assert parameters.index("size :") < parameters.index("name :") < parameters.index("extra :")
    assert "How large.\n\n    A second paragraph." in parameters
    assert "What the child is called." in parameters
    assert "What it is called." not in parameters
    assert "How large it became." in section(doc, "Attributes")
    assert "What it learnt." in section(doc, "Attributes")
    assert ">>> 1 + 1" in section(doc, "Examples")
    assert "extra" not in Parent.__doc__


def documented(doc, title):
    return [
        line.split(" : ")[0]
        for line in section(doc, title).splitlines()
        if line and not line.startswith(" ")
    ]


def test_every_parameter_of_the_autoencoder_is_documented_once_in_order():
    signature = list(inspect.signature(Autoencoder).parameters)
    assert documented(Autoencoder.__doc__, "Parameters") == signature
    assert set(BaseAutoencoder._parameter_constraints) == set(signature)


def test_every_attribute_of_the_autoencoder_is_documented(curved):
    fitted = Autoencoder(2, max_epochs=1).fit(curved)
    public = {name for name in dir(Autoencoder) if name.endswith("_") and name[0] != "_"}
    assert set(documented(Autoencoder.__doc__, "Attributes")) == public
    assert not hasattr(Autoencoder(), "n_components_")
    assert all(
        hasattr(fitted, name) for name in public - {"feature_names_in_", "components_", "mean_"}
    )


def test_documented_defaults_are_the_defaults():
    text = section(Autoencoder.__doc__, "Parameters")
    for name, parameter in inspect.signature(Autoencoder).parameters.items():
        head = next(line for line in text.splitlines() if line.startswith(f"{name} : "))
        assert ast.literal_eval(head.split("default=")[1]) == parameter.default, head


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda c: c.__name__)
def test_only_the_size_of_the_code_or_the_autoencoder_is_positional(estimator):
    first, *others = inspect.signature(estimator).parameters.values()
    is_autoencoder = issubclass(estimator, BaseAutoencoder)
    assert first.name == ("n_components" if is_autoencoder else "autoencoder")
    assert first.kind is first.POSITIONAL_OR_KEYWORD
    assert {p.kind for p in others} == {first.KEYWORD_ONLY}
    assert estimator(8).get_params(deep=False)[first.name] == 8


def test_constraints_are_those_of_the_parents_and_own_ones():
    assert list(Child._parameter_constraints) == ["size", "name", "extra"]
    assert list(Parent._parameter_constraints) == ["size", "name"]
    validate_parameters(Child())
    for wrong in ({"size": 0}, {"name": 1}, {"extra": 2.0}):
        with pytest.raises(InvalidParameterError, match=next(iter(wrong))):
            validate_parameters(Child(**wrong))


def test_constraints_are_merged_in_the_order_of_the_classes():
    class Left(Parent):
        """Changes a constraint."""

        _parameter_constraints: ClassVar = {"size": [str]}

    class Right(Parent):
        """Changes two."""

        _parameter_constraints: ClassVar = {"size": [dict], "name": [dict]}

    class Both(Left, Right):
        """Has the first that is changed."""

    assert Both._parameter_constraints == {"size": [str], "name": [dict]}
    assert Parent._parameter_constraints["name"] == [str]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda c: c.__name__)
def test_every_parameter_of_every_estimator_is_documented_and_checked(estimator):
    signature = list(inspect.signature(estimator).parameters)
    assert documented(estimator.__doc__, "Parameters") == signature
    assert list(estimator._parameter_constraints) == signature


def test_clone_keeps_all_parameters():
    def corrupt(x, generator):
        return x

    original = Autoencoder(3, corruption=corrupt, hidden_layer_sizes=(4, 2), trim=0.1)
    assert clone(original).get_params() == original.get_params()


def test_a_child_may_have_a_plain_docstring():
    class Plain(Parent):
        """A line."""

    assert Plain.__doc__.startswith("A line.")
    assert documented(Plain.__doc__, "Parameters") == ["size", "name"]


def test_an_entry_of_one_line_keeps_the_text_of_the_parents():
    class Renamed(Parent):
        """A line.

        Parameters
        ----------
        size : int, default=7
        """

        size: int = 7

    parameters = section(Renamed.__doc__, "Parameters")
    assert documented(Renamed.__doc__, "Parameters") == ["size", "name"]
    assert parameters.startswith("size : int, default=7\n    How large.\n\n    A second paragraph.")


def test_documentation_of_a_method_is_inherited():
    doc = Child.draw.__doc__
    assert doc.startswith("Draw other numbers.\n\nParameters\n")
    assert documented(doc, "Parameters") == ["first", "n", "scale"]
    parameters = section(doc, "Parameters")
    assert "How many.\n\n    A second paragraph." in parameters
    assert "How very large." in parameters
    assert "How large." not in parameters
    assert "The numbers." in section(doc, "Returns")
    assert documented(doc, "Raises") == ["ValueError", "TypeError"]
    assert "Where `first` is infinite." in section(doc, "Raises")
    assert "negative" not in doc
    assert "Examples" not in doc
    assert doc.index("Parameters") < doc.index("Returns") < doc.index("Raises")
    assert documented(inspect.getdoc(Parent.draw), "Parameters") == ["n", "scale", "seed"]


def test_a_method_without_a_docstring_inherits_its_parents():
    assert Child.tell.__doc__ == inspect.getdoc(Parent.tell)
    assert Child._hidden.__doc__ is None

    class Grandchild(Child):
        """A line."""

        def draw(self, first, n, scale=2.0, **more):
            """Draw yet others."""

        def tell(self, y):
            pass

        def new(self):
            pass

    assert documented(Grandchild.draw.__doc__, "Parameters") == ["first", "n", "scale"]
    assert documented(Grandchild.tell.__doc__, "Parameters") == ["X, y"]
    assert Grandchild.new.__doc__ is None


def test_a_mixin_may_document_a_method():
    class Mixin:
        def tell(self, X):
            """Tell what a mixin knows.

            Parameters
            ----------
            X : int
                A thing.
            """

    class Mixed(Mixin, Child):
        """A line."""

        def tell(self, X):
            pass

    assert Mixed.tell.__doc__ == inspect.getdoc(Mixin.tell)


def own_methods(estimator):
    """The public methods that skae's classes define, by name."""
    classes = [c for c in estimator.__mro__ if c.__module__.startswith("skae.")]
    names = {name for c in classes for name, value in vars(c).items() if inspect.isfunction(value)}
    made_by_sklearn = ("_", "set_")
    return {n: getattr(estimator, n) for n in sorted(names) if not n.startswith(made_by_sklearn)}


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda c: c.__name__)
def test_every_parameter_of_every_method_is_documented(estimator):
    for name, method in own_methods(estimator).items():
        doc = inspect.getdoc(method)
        expected = list(inspect.signature(method).parameters)[1:]
        told = ", ".join(documented(doc, "Parameters")).split(", ") if expected else []
        assert told == expected, name
        assert name == "save" or section(doc, "Returns"), name


def test_an_overriding_method_documents_what_it_shares_with_others():
    classes = SemiSupervisedVariationalAutoencoder, BaseAutoencoder
    own, base = (inspect.getdoc(cls.partial_fit) for cls in classes)
    weight = re.search(r"^sample_weight .*\n(?: .*\n)+", section(base, "Parameters"), re.M)[0]
    assert weight in section(own, "Parameters")
    assert "classes : " in section(own, "Parameters")
    assert section(own, "Returns") == section(base, "Returns")
    assert section(own, "Raises") != section(base, "Raises")
