"""Hyper-parameters stated once, as class fields; `__init__` and the docs follow from them."""

import re
from dataclasses import dataclass, field, fields
from inspect import cleandoc, isfunction, signature
from typing import ClassVar, dataclass_transform

_SECTION = re.compile(r"^(?P<title>[A-Z][A-Za-z ]+)\n-{3,}\n", re.MULTILINE)
_ENTRY = re.compile(r"^(?=\S)", re.MULTILINE)


def sections(doc: str) -> dict[str, str]:
    """Split a numpydoc text into {title: body}; the summary's title is empty."""
    doc = cleandoc(doc)
    starts = list(_SECTION.finditer(doc))
    ends = [*(match.start() for match in starts), len(doc)]
    return {"": doc[: ends[0]].rstrip()} | {
        match["title"]: doc[match.end() : end].rstrip()
        for match, end in zip(starts, ends[1:], strict=True)
    }


def _entries(body: str) -> dict[str, str]:
    """Split the body of a `Parameters`-like section into {name: text}."""
    parts = [part.rstrip() for part in _ENTRY.split(body) if part.strip()]
    return {re.split("[:(\n]", part)[0].strip(): part for part in parts}


def _names(entry: str) -> list[str]:
    """The parameters that an entry such as `A, B` or `**kwargs` is of."""
    return entry.replace("*", "").split(", ")


def inherit_doc(doc: str | None, parent_doc: str | None, order: list[str]) -> str:
    """Add to `doc` what `parent_doc` documents of the same.

    Entries of the parent appear beside those that `doc` has itself; its summary and `Returns` do
    where `doc` has none. Parameters are put in `order`, and those that are not in it are dropped.
    """
    titles = ("", "Parameters", "Attributes", "Returns", "Raises", "Warns")
    merged = dict.fromkeys(titles, "") | sections(doc or "")
    for title, body in sections(parent_doc or "").items():
        if title in ("", "Returns"):
            merged[title] = merged[title] or body
        elif title in titles:
            entries = _entries(body) | _entries(merged[title])
            if title == "Parameters":
                entries = {e: entries[e] for name in order for e in entries if name in _names(e)}
            merged[title] = "\n\n".join(entries.values())
    return "\n\n".join(
        f"{title}\n{'-' * len(title)}\n{body}" if title else body
        for title, body in merged.items()
        if body
    )


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
class Declared:
    """Base of classes whose constructor parameters are their annotated class fields.

    The generated `__init__` only stores its arguments, as scikit-learn's `clone` and
    `set_params` require. Parameters are keyword-only unless their field says otherwise,
    which subclasses inherit. A class states the `_parameter_constraints` of its own parameters;
    those of its parents are added.

    What a parent documents under `Parameters` and `Attributes` appears in the docstring of every
    subclass. A public method that overrides another inherits what its docstring leaves out: the
    summary, entries of `Parameters`, `Raises` and `Warns`, and `Returns`.
    """

    _own_constraints: ClassVar[dict[str, list[object]]] = {}
    _parameter_constraints: ClassVar[dict[str, list[object]]] = {}

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(kw_only=True, eq=False, repr=False)(cls)
        parameters = fields(cls)  # type: ignore[arg-type]
        # What a class itself states is kept: a parent's merged constraints hold its parents' too,
        # which must not undo what another parent changes.
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
