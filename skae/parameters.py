"""Estimators whose parameters are class fields, and the inheritance of their docstrings."""

import re
import reprlib
from dataclasses import dataclass, field, fields
from inspect import cleandoc, isfunction, signature
from numbers import Integral
from typing import Any, ClassVar, dataclass_transform

_SECTION = re.compile(r"^(?P<title>[A-Z][A-Za-z ]+)\n-{3,}\n", re.MULTILINE)
_ENTRY = re.compile(r"^(?=\S)", re.MULTILINE)

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100


def short_repr(value: object) -> str:
    """Return a representation of a user's value for an error message, shortened if it is long.

    A class is represented by its name, without the module that defines it.
    """
    return f"the class {value.__name__}" if isinstance(value, type) else _SHORT.repr(value)


def is_integer(value: object) -> bool:
    """Return whether a value is an integer. Booleans are not integers."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_integer(value: Any, name: str, low: int, high: int | None = None) -> int:
    """Return the argument `name`. Raise ValueError unless it is an integer in [low, high]."""
    if not is_integer(value) or value < low or (high is not None and value > high):
        limits = f"of at least {low}" if high is None else f"in [{low}, {high}]"
        raise ValueError(f"{name} must be an integer {limits}, got {short_repr(value)}.")
    return int(value)


def split_sections(doc: str) -> dict[str, str]:
    """Split a numpydoc docstring into {title: body}.

    The text before the first section has the title "".
    """
    doc = cleandoc(doc)
    starts = list(_SECTION.finditer(doc))
    ends = [*(match.start() for match in starts), len(doc)]
    return {"": doc[: ends[0]].rstrip()} | {
        match["title"]: doc[match.end() : end].rstrip()
        for match, end in zip(starts, ends[1:], strict=True)
    }


def _split_entries(body: str) -> dict[str, str]:
    """Split the body of a section such as `Parameters` into {name: text}."""
    parts = [part.rstrip() for part in _ENTRY.split(body) if part.strip()]
    return {re.split("[:(\n]", part)[0].strip(): part for part in parts}


def _parameter_names(entry: str) -> list[str]:
    """Return the parameters that an entry with a name such as `A, B` or `**kwargs` documents."""
    return entry.replace("*", "").split(", ")


def inherit_doc(doc: str | None, parent_doc: str | None, order: list[str]) -> str:
    """Complete a numpydoc docstring with that of its parent.

    Parameters
    ----------
    doc : str or None
        Docstring of a class or a method. Its texts take precedence over those of `parent_doc`. An
        entry of a single line, with the name and the type, keeps the text of the parent's entry.
    parent_doc : str or None
        Docstring of the parent class, or of the method that is overridden. It adds the entries that
        `doc` lacks in the sections `Parameters`, `Attributes`, `Raises` and `Warns`. It also adds
        the text before the first section, and the section `Returns`, if `doc` has none. Its other
        sections are not inherited.
    order : list of str
        Names of the parameters in the order in which to list them. Entries of other parameters are
        omitted.

    Returns
    -------
    merged : str
        The completed docstring.
    """
    titles = ("", "Parameters", "Attributes", "Returns", "Raises", "Warns")
    merged = dict.fromkeys(titles, "") | split_sections(doc or "")
    for title, body in split_sections(parent_doc or "").items():
        if title in ("", "Returns"):
            merged[title] = merged[title] or body
        elif title in titles:
            entries = _split_entries(body)
            for name, entry in _split_entries(merged[title]).items():
                text = "" if "\n" in entry else entries.get(name, "").partition("\n")[2]
                entries[name] = f"{entry}\n{text}".rstrip()
            if title == "Parameters":
                entries = {
                    e: entries[e] for name in order for e in entries if name in _parameter_names(e)
                }
            merged[title] = "\n\n".join(entries.values())
    return "\n\n".join(
        f"{title}\n{'-' * len(title)}\n{body}" if title else body
        for title, body in merged.items()
        if body
    )


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
class Declared:
    """Base class of estimators whose constructor parameters are their annotated class fields.

    The generated `__init__` only stores its arguments, as `clone` and `set_params` of scikit-learn
    require. Parameters are keyword-only unless their field is declared with `kw_only=False`.
    Subclasses inherit this property of the field. A class defines `_parameter_constraints` for its
    own parameters only; the constraints of its parents are added.

    The docstring of a class is completed with that of its first parent that is a subclass of this
    class, and the docstring of a public method with that of the method that it overrides.
    `inherit_doc` describes which texts are added.
    """

    _own_constraints: ClassVar[dict[str, list[object]]] = {}
    _parameter_constraints: ClassVar[dict[str, list[object]]] = {}

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(kw_only=True, eq=False, repr=False)(cls)
        parameters = fields(cls)  # type: ignore[arg-type]
        # A class keeps its own constraints separately. The merged constraints of one parent contain
        # those of its parents, which must not override the changes of another parent.
        cls._own_constraints = vars(cls).get("_parameter_constraints", {})
        cls._parameter_constraints = {}
        for base in reversed(cls.__mro__):
            cls._parameter_constraints |= vars(base).get("_own_constraints", {})
        parent = next(base for base in cls.__mro__[1:] if issubclass(base, Declared))
        cls.__doc__ = inherit_doc(cls.__doc__, parent.__doc__, [p.name for p in parameters])
        for name, method in vars(cls).items():
            docs = [vars(base)[name].__doc__ for base in cls.__mro__[1:] if name in vars(base)]
            if docs and isfunction(method) and not name.startswith("_"):
                order = list(signature(method).parameters)
                method.__doc__ = inherit_doc(method.__doc__, next(filter(None, docs), None), order)
