"""Trees of numbers, texts and arrays in one file: safetensors with a JSON text in its header.

Reading such a file executes nothing that it says, whoever wrote it.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import numpy as np
from numpy.random import MT19937, RandomState
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

FORMAT = 3
"""Version of the layout: a reader knows its own and all earlier ones."""

MALFORMED = (
    ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError, MemoryError
)  # fmt: skip
"""What reading nonsense may raise."""

Arrays = dict[str, NDArray[Any]]

CLASSES: dict[str, type["Stored"]] = {}
"""skae's classes that files may hold, by name."""


class Stored:
    """Objects that files may hold: estimators and what a fit leaves in them.

    Their `__getstate__` gives plain values, arrays and other such objects, whose layout is part of
    the file format.
    """

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith("skae."):
            CLASSES[cls.__name__] = cls

    def _stored_state(self) -> dict[str, Any]:
        """What a file holds of the object."""
        return dict(self.__getstate__() or {})  # type: ignore[call-overload]

    @classmethod
    def _from_stored_state(cls, state: dict[str, Any]) -> Any:
        """The object that a file holds; raises ValueError where the state is not one's."""
        if is_dataclass(cls):
            kinds = {field.name: field.type for field in fields(cls)}
            if kinds.keys() != state.keys():
                raise ValueError(f"a {cls.__name__} does not consist of {', '.join(state)}")
            wrong = [name for name, kind in kinds.items() if not is_of(state[name], kind)]
            if wrong:
                raise ValueError(f"{wrong[0]} of a {cls.__name__} cannot be {state[wrong[0]]!r}")
        thing = object.__new__(cls)
        vars(thing).update(state)
        return thing


def is_of(value: object, kind: Any) -> bool:
    """Whether a value is what an annotation says: a class, an array, a sequence or a union."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(is_of(value, part) for part in parts)
    if origin is np.ndarray:
        [dtype] = get_args(parts[1])
        if not isinstance(value, np.ndarray) or dtype is Any:
            return isinstance(value, np.ndarray)
        # The size of an index is the platform's.
        is_index = issubclass(dtype, np.integer)
        return np.issubdtype(value.dtype, np.integer if is_index else dtype)
    if origin in (list, Sequence):
        kinds = list if origin is list else (list, tuple)
        return isinstance(value, kinds) and all(is_of(item, parts[0]) for item in value)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return kind is Any or isinstance(value, kind)


def write(path: str | os.PathLike[str], kind: str, tree: object) -> None:
    """Write a tree, all or nothing: an existing file is replaced in one step.

    Raises TypeError where the tree holds what is no number, text, array or container of these.
    """
    arrays: Arrays = {}
    text = json.dumps(_encode(tree, arrays))
    header = {"skae": str(FORMAT), "kind": kind, "tree": text, "sha256": _digest(text, arrays)}
    path = Path(path)
    # Unlike those of tempfile, it has the permissions that the user's files have.
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    try:
        with open(part, "xb") as file:
            file.write(save(arrays, header))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def fits(value: object) -> bool:
    """Whether a value can be part of a tree."""
    try:
        _encode(value, {})
    except TypeError:
        return False
    return True


def read(path: str | os.PathLike[str], kind: str) -> tuple[int, Any]:
    """The format of a file, and the tree that `write` has put into it.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    ValueError
        Where it is not such a file, is damaged, is of another kind or of a later format.
    """
    name = os.fspath(path)
    if not Path(path).exists():
        raise FileNotFoundError(f"There is no file {name!r}.")
    try:
        with safe_open(name, framework="numpy") as file:
            header = file.metadata() or {}
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, ValueError, KeyError) as error:
        raise ValueError(f"{name!r} is not a file of skae's, or it is damaged: {error}") from None
    if header.get("kind") != kind:
        raise ValueError(f"{name!r} holds no {kind} of skae's.")
    version = header.get("skae", "")
    if not version.isdecimal() or int(version) > FORMAT:
        raise ValueError(
            f"{name!r} has format {version!r}, but this version of skae reads formats up to "
            f"{FORMAT}. Install a later skae."
        )
    text = header.get("tree", "")
    if _digest(text, arrays) != header.get("sha256"):
        raise ValueError(f"{name!r} is damaged: its checksum is wrong. Restore it from a copy.")
    try:
        return int(version), _decode(json.loads(text), arrays)
    except MALFORMED as error:
        raise ValueError(f"The contents of {name!r} make no sense: {error!r}") from None


def _digest(text: str, arrays: Arrays) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _encode(value: Any, arrays: Arrays) -> Any:
    """JSON for a tree; its arrays are put into `arrays`. What JSON lacks is a tagged dict."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_encode(item, arrays) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_encode(item, arrays) for item in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _encode(item, arrays) for key, item in value.items()}}
    if isinstance(value, Stored):
        name = type(value).__name__
        if CLASSES.get(name) is not type(value):
            raise TypeError(f"{name} is not one of skae's estimators: use pickle for it.")
        return {"object": [name, _encode(value._stored_state(), arrays)]}
    if isinstance(value, slice):
        return {"slice": [_encode(part, arrays) for part in (value.start, value.stop, value.step)]}
    if isinstance(value, RandomState) and isinstance(value._bit_generator, MT19937):
        return {"RandomState": _encode(value.get_state(), arrays)}
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        name = str(len(arrays))
        arrays[name] = np.ascontiguousarray(value).reshape(value.shape)
        return {"array": name}
    if isinstance(value, np.ndarray) and all(isinstance(item, str) for item in value.flat):
        return {"names": value.tolist()}
    raise TypeError(f"a {type(value).__name__} cannot be written to a file of numbers and texts")


def _decode(value: Any, arrays: Arrays) -> Any:
    if isinstance(value, list):
        return [_decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    [(tag, content)] = value.items()
    match tag:
        case "tuple":
            return tuple(_decode(item, arrays) for item in content)
        case "dict":
            return {key: _decode(item, arrays) for key, item in content.items()}
        case "slice":
            return slice(*content)
        case "RandomState":
            name, keys, position, *rest = _decode(content, arrays)
            # numpy believes what it is told and would read beyond the keys.
            if keys.dtype != np.uint32 or keys.shape != (624,) or not 0 <= position <= 624:
                raise ValueError("this is no state of a RandomState")
            state = RandomState()
            state.set_state((name, keys, position, *rest))
            return state
        case "array":
            return arrays[content]
        case "names":
            return np.array(content, dtype=object)
        case "object":
            name, state = content
            if name not in CLASSES:
                raise ValueError(f"this version of skae has no {name!r}")
            return CLASSES[name]._from_stored_state(_decode(state, arrays))
    raise ValueError(f"unknown tag {tag!r}")
