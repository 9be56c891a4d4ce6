"""Hyper-parameters stated once, as class fields; `__init__` and the docs follow from them."""

import re
from dataclasses import dataclass, field, fields
from typing import dataclass_transform

_SECTION = re.compile(r"^(?P<title>[A-Z][A-Za-z ]+)\n-{3,}\n", re.MULTILINE)
_ENTRY = re.compile(r"^(?=\S)", re.MULTILINE)


def _dedent(doc: str) -> str:
    lines = doc.expandtabs().splitlines()
    margin = min((len(s) - len(s.lstrip()) for s in lines[1:] if s.strip()), default=0)
    return "\n".join([lines[0].strip(), *(s[margin:] for s in lines[1:])]).rstrip() + "\n"


def _sections(doc: str) -> dict[str, str]:
    """Split a dedented numpydoc text into {title: body}; the summary's title is empty."""
    starts = list(_SECTION.finditer(doc))
    ends = [*(match.start() for match in starts), len(doc)]
    return {"": doc[: ends[0]]} | {
        match["title"]: doc[match.end() : end] for match, end in zip(starts, ends[1:], strict=True)
    }


def _entries(body: str) -> dict[str, str]:
    """Split the body of a `Parameters`-like section into {name: text}."""
    parts = [part.rstrip() for part in _ENTRY.split(body) if part.strip()]
    return {part.split(":")[0].split("(")[0].strip(): part for part in parts}


def _inherit_doc(doc: str, parent_doc: str, order: list[str]) -> str:
    """Add to the `Parameters` and `Attributes` of `doc` those that `parent_doc` documents."""
    own, inherited = _sections(_dedent(doc)), _sections(_dedent(parent_doc))
    merged = {"": own.pop("")}
    for title in ("Parameters", "Attributes"):
        entries = _entries(inherited.get(title, "")) | _entries(own.pop(title, ""))
        names = sorted(entries, key=lambda name: order.index(name) if name in order else len(order))
        merged[title] = "\n\n".join(entries[name] for name in names) + "\n\n"
    merged |= own
    return "".join(
        f"{title}\n{'-' * len(title)}\n{body}" if title else body
        for title, body in merged.items()
        if title == "" or body.strip()
    )


# Type checkers take all parameters for positional: else they would reject the first by position.
@dataclass_transform(eq_default=False, field_specifiers=(field,))
class Declared:
    """Base of classes whose constructor parameters are their annotated class fields.

    The generated `__init__` only stores its arguments, as scikit-learn's `clone` and
    `set_params` require. Parameters are keyword-only unless their field says otherwise; the first
    of those that a class inherits may be given by position, too. What a parent documents under
    `Parameters` and `Attributes` appears in the docstring of every subclass.
    """

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(kw_only=True, eq=False, repr=False)(cls)
        parameters = fields(cls)  # type: ignore[arg-type]
        for first in parameters[:1]:
            # Subclasses inherit the field as it is and take its parameter by position.
            first.kw_only = False
        parent = next((base for base in cls.__mro__[1:] if issubclass(base, Declared)), Declared)
        if parent is not Declared and cls.__doc__ and parent.__doc__:
            cls.__doc__ = _inherit_doc(cls.__doc__, parent.__doc__, [p.name for p in parameters])
