"""`Declared`: parameters stated once as fields; constructor, clone and documentation follow."""

import ast
import inspect
from dataclasses import field

import pytest
from sklearn.base import BaseEstimator, clone

import skae
from skae import Autoencoder
from skae.base import BaseAutoencoder
from skae.parameters import Declared

PUBLIC = [getattr(skae, name) for name in skae.__all__]
ESTIMATORS = [c for c in PUBLIC if isinstance(c, type) and issubclass(c, Declared)]


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
    public = {name for name in vars(fitted) if name.endswith("_") and not name.startswith("_")}
    assert public <= set(documented(Autoencoder.__doc__, "Attributes"))
    assert set(documented(Autoencoder.__doc__, "Attributes")) == public | {"feature_names_in_"}


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
