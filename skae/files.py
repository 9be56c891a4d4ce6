"""Files of skae: trees of numbers, texts and arrays in the safetensors format.

A tree is a nesting of lists, tuples, dicts and objects. The header of a file contains the tree as
JSON, with references to the arrays, which follow the header. Reading a file executes no code from
the file.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import UnionType
from typing import Any, BinaryIO, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.random import MT19937, RandomState
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

try:
    import fcntl
except ImportError:  # on Windows, where temporary files of killed processes are not removed
    fcntl = None  # type: ignore[assignment]

FORMAT = 5
"""Version of the file format. Files of this and of all earlier versions can be read."""

MALFORMED_ERRORS = (
    ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError, MemoryError
)  # fmt: skip
"""Exceptions that reading invalid contents may raise."""

Arrays = dict[str, NDArray[Any]]

CLASSES: dict[str, type["Stored"]] = {}
"""Classes of skae that files may contain, by name."""


class Stored:
    """Base class of objects that files may contain: estimators and parts of their fitted state.

    `__getstate__` returns a dict of values that `write` accepts. The names of the subclasses and of
    their attributes are part of the file format. Files can contain only subclasses that are defined
    in skae. The type hints of a subclass are its attributes.
    """

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith("skae."):
            CLASSES[cls.__name__] = cls

    def _stored_state(self) -> dict[str, Any]:
        """Return the attributes that a file contains."""
        return dict(self.__getstate__() or {})  # type: ignore[call-overload]

    @classmethod
    def _from_stored_state(cls, state: dict[str, Any]) -> Any:
        """Make an object from the attributes that a file contains.

        It raises ValueError unless the names and types of the attributes are those of the type
        hints and `_check_state` accepts the object.
        """
        kinds = get_type_hints(cls)
        if kinds.keys() != state.keys():
            raise ValueError(
                f"the fields of a {cls.__name__} are {', '.join(kinds)}, got {', '.join(state)}"
            )
        wrong = [name for name, kind in kinds.items() if not matches_type(state[name], kind)]
        if wrong:
            raise ValueError(f"{wrong[0]} of a {cls.__name__} cannot be {state[wrong[0]]!r}")
        instance = object.__new__(cls)
        vars(instance).update(state)
        instance._check_state()
        return instance

    def _check_state(self) -> None:
        """Raise ValueError if the attributes, which have the right types, are inconsistent."""


def check_numbers(
    values: NDArray[Any], shape: tuple[int, ...], name: str, positive: bool = False
) -> None:
    """Raise ValueError unless an array has a shape and finite entries, above 0 if `positive`."""
    is_valid = values.shape == shape and np.isfinite(values).all()
    if not is_valid or (positive and not (values > 0).all()):
        kind = "positive" if positive else "finite"
        raise ValueError(f"{name} must be {kind} numbers of shape {shape}")


def matches_type(value: object, kind: Any) -> bool:
    """Return whether a value matches a type: a class, an array, a sequence or a union of types.

    An int matches float, but a bool matches neither int nor float. An array matches if its dtype
    does. Arrays of all integer dtypes match a type with an integer dtype.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(matches_type(value, part) for part in parts)
    if origin is np.ndarray:
        [dtype] = get_args(parts[1])
        if not isinstance(value, np.ndarray) or dtype is Any:
            return isinstance(value, np.ndarray)
        # The size of an integer depends on the platform that wrote the file.
        is_index = issubclass(dtype, np.integer)
        return np.issubdtype(value.dtype, np.integer if is_index else dtype)
    if origin in (list, Sequence):
        kinds = list if origin is list else (list, tuple)
        return isinstance(value, kinds) and all(matches_type(item, parts[0]) for item in value)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return kind is Any or isinstance(value, kind)


def write(path: str | os.PathLike[str], kind: str, tree: object) -> None:
    """Write a tree to a file.

    An existing file is replaced in a single step: if writing fails, it is left unchanged. The new
    file has the mode of the existing one and, where the process may set them, its owner and its
    group. A new file has the mode that the function `open` gives. If `path` is a symbolic link, the
    file to which it points is replaced.

    Parameters
    ----------
    path : str or path-like
        Path of the file.
    kind : str
        Kind of the contents, which `read` compares with the expected kind.
    tree : object
        None, a boolean, a number, a text, a slice, an array of numbers, booleans or texts, a
        `RandomState` with the generator MT19937, a `Stored` object of a class of skae, or a list, a
        tuple or a dict of these. The keys of dicts are texts.

    Raises
    ------
    TypeError
        If the tree contains anything else.
    OSError
        If the file cannot be written.
    """
    arrays: Arrays = {}
    text = json.dumps(_encode(tree, arrays))
    header = {"skae": str(FORMAT), "kind": kind, "tree": text, "sha256": _digest(text, arrays)}
    content = save(arrays, header)
    try:
        _replace(Path(os.path.realpath(path)), content)
    except OSError as error:
        # The message contains the path of the user instead of that of the temporary file.
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove the temporary files that processes left behind that were killed in `write`.

    `path` is the path with which `write` was called. Files that a process still writes are locked,
    and they are kept.
    """
    path = Path(os.path.realpath(path))
    pattern = re.compile(rf"{re.escape(path.name)}\.[0-9a-f]{{16}}\.part")
    # A folder in which files can be written need not be readable.
    with suppress(OSError):
        for part in path.parent.iterdir():
            if fcntl is not None and pattern.fullmatch(part.name):
                with suppress(OSError), open(part, "r+b") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    part.unlink()


def _replace(path: Path, content: bytes) -> None:
    """Write a file under a temporary name in the same folder, and then rename it."""
    # The status is read once, because another process may remove the file meanwhile.
    try:
        existing = path.stat()
    except FileNotFoundError:
        existing = None
    if existing is not None and not stat.S_ISREG(existing.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file")
    remove_leftovers(path)
    # Others must not read a file that replaces a private one, not even while it is written.
    with _temporary_file(path, 0o666 if existing is None else 0o600) as (part, file):
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        if existing is not None:
            _copy_permissions(existing, part)
        if fcntl is None:
            # Windows cannot rename a file that is open.
            file.close()
        os.replace(part, path)


@contextmanager
def _temporary_file(path: Path, mode: int) -> Iterator[tuple[Path, BinaryIO]]:
    """Create a temporary file for `path`, which is locked while it is open.

    Yields its path and the open file. If the context is left by an exception, the file is removed.
    The module `tempfile` is not used, because only its owner could read the file that it creates.
    """
    while True:
        part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
        file = open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb")  # noqa: SIM115
        if fcntl is not None:
            # Some file systems have no locks. There, temporary files are never removed.
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
        # Another process may have removed the file before it was locked.
        if os.fstat(file.fileno()).st_nlink:
            break
        file.close()
    with file:
        try:
            yield part, file
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _copy_permissions(existing: os.stat_result, part: Path) -> None:
    """Give a file the mode of an existing one and, if possible, its owner and its group."""
    if hasattr(os, "chown"):
        for owner in ((-1, existing.st_gid), (existing.st_uid, -1)):
            with suppress(OSError):
                os.chown(part, *owner)
    # A change of the owner may clear bits of the mode.
    part.chmod(stat.S_IMODE(existing.st_mode))


def can_encode(value: object) -> bool:
    """Return whether `write` accepts a value as a tree."""
    try:
        _encode(value, {})
    except TypeError:
        return False
    return True


def read(path: str | os.PathLike[str], kind: str) -> tuple[int, Any]:
    """Read a file that `write` has written.

    Parameters
    ----------
    path : str or path-like
        Path of the file.
    kind : str
        Expected kind of the contents.

    Returns
    -------
    version : int
        Version of the file format.
    tree : object
        The tree that was written.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file cannot be opened, is not a regular file, was not written by `write`, is damaged,
        or has another kind or a later format.
    """
    name = os.fspath(path)
    absent = f"File {name!r} does not exist."
    try:
        mode = os.stat(name).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(absent) from None
    if not stat.S_ISREG(mode):
        # Opening a named pipe could wait forever.
        raise ValueError(f"{name!r} is not a file of skae, because it is not a regular file.")
    try:
        with safe_open(name, framework="numpy") as file:
            header = file.metadata() or {}
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        # Another process has removed the file meanwhile.
        raise FileNotFoundError(absent) from None
    except (SafetensorError, OSError, TypeError, ValueError, KeyError) as error:
        raise ValueError(f"{name!r} is not a file of skae, or it is damaged: {error}") from None
    if header.get("kind") != kind:
        raise ValueError(f"{name!r} does not contain a skae {kind}.")
    version = header.get("skae", "")
    if not version.isdecimal() or int(version) > FORMAT:
        raise ValueError(
            f"{name!r} has format {version!r}, but this version of skae reads formats up to "
            f"{FORMAT}. Install a later version of skae."
        )
    text = header.get("tree", "")
    if _digest(text, arrays) != header.get("sha256"):
        raise ValueError(f"{name!r} is damaged: its checksum is wrong. Restore it from a backup.")
    try:
        return int(version), _decode(json.loads(text), dict(arrays))
    except MALFORMED_ERRORS as error:
        raise ValueError(f"The contents of {name!r} are invalid: {error!r}") from None


def _digest(text: str, arrays: Arrays) -> str:
    """Compute the SHA-256 checksum of a tree, given as its JSON text, and of its arrays."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _encode(value: Any, arrays: Arrays) -> Any:
    """Convert a tree to JSON values and add its arrays to `arrays`.

    A value that is not None, a boolean, a number, a text or a list becomes a dict with a single
    item. Its key, the tag, names the type of the value. `arrays` maps the names that such dicts
    contain to the arrays.
    """
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
            raise TypeError(f"{name} is not a class of skae. Use pickle to store it.")
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
    raise TypeError(
        f"{type(value).__name__} cannot be saved to a file, which contains only numbers, texts and "
        "arrays."
    )


def _decode(value: Any, arrays: Arrays) -> Any:
    """Convert JSON values and arrays, as `_encode` returns them, back to a tree.

    Arrays are removed from `arrays`, because each occurs once in a tree. A small file can therefore
    not describe a large tree.
    """
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
            start, stop, step = content
            if all(isinstance(part, str | int | None) for part in content):
                return slice(start, stop, step)
        case "RandomState":
            name, keys, position, *rest = _decode(content, arrays)
            # numpy does not check the state and would read beyond the end of the keys.
            if keys.dtype != np.uint32 or keys.shape != (624,) or not 0 <= position <= 624:
                raise ValueError("the state of a RandomState is invalid")
            state = RandomState()
            state.set_state((name, keys, position, *rest))
            return state
        case "array":
            return arrays.pop(content)
        case "names":
            names = np.array(content, dtype=object)
            if all(isinstance(name, str) for name in names.flat):
                return names
        case "object":
            name, state = content
            if name not in CLASSES:
                raise ValueError(f"this version of skae has no class {name!r}")
            return CLASSES[name]._from_stored_state(_decode(state, arrays))
    raise ValueError(f"unknown tag {tag!r}, or its content is invalid")
