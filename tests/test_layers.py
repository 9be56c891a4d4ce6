"""Who may import whom (DESIGN, section 2), and how long a variant may be."""

import ast
import inspect
import re
import sys
from pathlib import Path

import pytest

import skae
from skae.base import BaseAutoencoder

pytestmark = pytest.mark.every_case

ROOT = Path(skae.__file__).parent

SCIENCE = {"stdlib", "numpy", "pandas", "sklearn", "skae._compat.sklearn"}

BELOW_BASE = {
    "torch", "skae.density", "skae.training", "skae.table", "skae.nn", "skae.parameters",
    "skae.files", "skae._compat.torch",
}  # fmt: skip

ARROWS = {
    "metrics": SCIENCE | {"skae.inspection", "skae.table"},
    "model_selection": SCIENCE | {"skae.parameters", "skae.state", "skae.table"},
    "inspection": SCIENCE | {"matplotlib", "skae.model_selection", "skae.parameters", "skae.table"},
    "tasks": SCIENCE
    | {"scipy"}
    | BELOW_BASE
    | {
        "skae.variants",
        "skae.base",
        "skae.fitting",
        "skae.state",
    },
    "variants": SCIENCE | BELOW_BASE | {"skae.base", "skae.inference", "skae.state"},
    "base": SCIENCE
    | BELOW_BASE
    | {
        "skae.derivatives",
        "skae.fitting",
        "skae.inference",
        "skae.starting",
        "skae.state",
    },
    "derivatives": SCIENCE | BELOW_BASE | {"skae.inference", "skae.state"},
    "fitting": SCIENCE | BELOW_BASE | {"skae.starting", "skae.state"},
    "starting": SCIENCE | BELOW_BASE | {"skae.state"},
    "inference": SCIENCE | BELOW_BASE | {"skae.state"},
    "state": SCIENCE | BELOW_BASE,
    "density": {"stdlib", "torch", "skae.nn", "skae._compat.torch"},
    "training": SCIENCE
    | {
        "torch",
        "skorch",
        "skae.table",
        "skae.nn",
        "skae.parameters",
        "skae.files",
        "skae._compat.torch",
    },
    "table": SCIENCE | {"narwhals", "skae.parameters", "skae.files"},
    "nn": {"stdlib", "torch", "skae._compat.torch"},
    "parameters": {"stdlib"},
    "files": {"stdlib", "numpy", "safetensors"},
    "_compat": {"stdlib", "sklearn", "torch", "skae.parameters"},
}
"""What each room may import beside itself: other rooms, the standard library, other packages."""

PARENTS = {
    "conditional": {"skae.variants.conditioned", "skae.variants.variational"},
    "fair": {"skae.variants.conditioned", "skae.variants.variational"},
}
"""Variants never import each other, but a variant of a variant its parents."""

VARIANT_LINES = 80
FILE_LINES = 400
FUNCTION_LINES = 60
FILES_AT_THE_TOP = 10
"""Most lines of code of a variant, a file and a function, and most files in `skae` itself."""


def module_name(path: Path, root: Path) -> str:
    parts = list(path.relative_to(root.parent).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str, module: str, is_package: bool = False) -> list[str]:
    """Full names of all that a module's source imports, wherever in it."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                package = module.split(".")
                package = package[: len(package) - node.level + is_package]
                origin = ".".join([*package, *([origin] if origin else [])])
            if origin == "skae" or node.module is None:
                names += [f"{origin}.{alias.name}" for alias in node.names]
            else:
                names.append(origin)
    return names


def layer(name: str) -> str:
    """The room that an imported name belongs to, as the table calls it."""
    first, *rest = name.split(".")
    if first == "skae":
        depth = 2 if rest[:1] == ["_compat"] else 1
        return ".".join([first, *rest[:depth]])
    return "stdlib" if first in sys.stdlib_module_names else first


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """Imports of a module that the arrows do not have."""
    names = imported(source, module, is_package)
    room, *rest = module.split(".")[1:] or ["skae"]
    if room == "skae":
        return [n for n in names if layer(n).split(".")[0] != "skae"]
    permitted = ARROWS[room]
    wrong = [n for n in names if layer(n) not in permitted and layer(n) != f"skae.{room}"]
    if room == "variants":
        parents = PARENTS.get(*rest, set()) if rest else set()
        siblings = [n for n in names if layer(n) == "skae.variants"]
        wrong += [n for n in siblings if ".".join(n.split(".")[:3]) not in parents]
    return wrong


SOURCES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: module_name(path, ROOT))
def test_imports_follow_the_arrows(path):
    module = module_name(path, ROOT)
    assert violations(path.read_text(), module, path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("skae.nn.network", "import sklearn"),
        ("skae.nn.network", "from skorch import NeuralNet"),
        ("skae.nn.network", "from skae.base import BaseAutoencoder"),
        ("skae.nn.network", "from ..training.loop import Net"),
        ("skae.nn.bodies.mlp", "from ...table.rows import hash_rows"),
        ("skae.nn.network", "from skae._compat.sklearn import Interval"),
        ("skae.nn.network", "def late():\n    import sklearn.base"),
        ("skae.base", "from skorch.history import History"),
        ("skae.base", "from skae.variants.autoencoder import Autoencoder"),
        ("skae.base", "from skae import variants"),
        ("skae.fitting", "from skae.base import BaseAutoencoder"),
        ("skae.parameters", "import numpy"),
        ("skae.table.rows", "import torch"),
        ("skae.table.rows", "from skae.nn.draws import Draws"),
        ("skae.table.rows", "from skae._compat.torch import operator_schema"),
        ("skae.density.laplace", "from skae.training.loop import Net"),
        ("skae.density.laplace", "import sklearn"),
        ("skae.training.loop", "from skae.base import BaseAutoencoder"),
        ("skae.training.loop", "from skae.density.laplace import Laplace"),
        ("skae.variants.variational", "from skae.variants.autoencoder import Autoencoder"),
        ("skae.variants.variational", "from .autoencoder import Autoencoder"),
        ("skae.variants.variational", "from skae.tasks.classifier import AutoencoderClassifier"),
        ("skae.metrics", "from skae.base import BaseAutoencoder"),
        ("skae.inspection.display", "from skae.nn.network import Network"),
        ("skae.files", "import torch"),
        ("skae.state", "from skae.base import BaseAutoencoder"),
        ("skae", "import torch"),
    ],
)
def test_a_planted_import_is_caught(module, source):
    assert violations(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("skae.nn.network", "import math\nimport torch.nn\nfrom skae.nn.draws import Draws"),
        ("skae.nn.network", "from .draws import Draws"),
        ("skae.nn.step.graph", "from skae._compat.torch import operator_schema"),
        ("skae.training.loop", "from skorch import NeuralNet"),
        ("skae.variants.conditional", "from skae.variants.variational import Variational"),
        ("skae.tasks.outlier", "from skae.variants.autoencoder import Autoencoder"),
        ("skae", "from skae.variants.autoencoder import Autoencoder"),
    ],
)
def test_a_permitted_import_passes(module, source):
    assert violations(source, module) == []


def test_only_the_loop_imports_skorch():
    users = [
        path.name
        for path in SOURCES
        if "skorch" in {layer(n) for n in imported(path.read_text(), module_name(path, ROOT))}
    ]
    assert users == ["loop.py"]


def private_names(source: str) -> list[str]:
    """Names of scikit-learn and torch that begin with an underscore, imported or reached."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom | ast.Import):
            module = getattr(node, "module", None)
            names = [".".join(filter(None, [module, alias.name])) for alias in node.names]
        elif isinstance(node, ast.Attribute) and re.fullmatch(r"[\w.]+", ast.unparse(node)):
            names = [ast.unparse(node)]
        else:
            continue
        found += [
            name
            for name in names
            if name.split(".")[0] in ("sklearn", "torch")
            and any(part.startswith("_") for part in name.split("."))
        ]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: module_name(path, ROOT))
def test_private_names_are_in_compat_only(path):
    if path.parent.name != "_compat":
        assert private_names(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "from sklearn.base import _fit_context",
        "from sklearn.utils._param_validation import Interval",
        "import torch._ops",
        "y = torch._C._nn(x)",
    ],
)
def test_a_planted_private_name_is_caught(source):
    assert private_names(source)


def test_package_holds_public_names_and_nothing_else():
    """`__init__` imports names and states `__all__` and `__version__`."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    defined = set()
    for node in tree.body:
        if isinstance(node, ast.Assign):
            defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        else:
            assert isinstance(node, ast.ImportFrom | ast.Expr)
    assert defined == {"__all__", "__version__"}
    names = {
        a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names
    }
    assert names == set(skae.__all__)


def numbers_of_code_lines(source: str) -> set[int]:
    """Numbers of lines of code: no docstrings, imports, blank lines or comments."""
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        text = text and isinstance(node.value.value, str)
        if text or isinstance(node, ast.Import | ast.ImportFrom):
            left_out |= set(range(node.lineno, node.end_lineno + 1))
    lines = enumerate(source.splitlines(), start=1)
    return {n for n, line in lines if line.strip() and line.strip()[0] != "#"} - left_out


def code_lines(source: str) -> int:
    """Lines of code: no docstrings, imports, blank lines or comments."""
    return len(numbers_of_code_lines(source))


def test_code_lines_counts_code_only():
    source = '"""Doc\n\nlong."""\n\nimport a\nfrom b import (\n    c,\n)\n\n# note\nx = 1\n\n\n'
    source += 'def f():\n    """Doc."""\n    return x  # why\n'
    assert code_lines(source) == 3


def variant_files():
    public = [getattr(skae, name) for name in skae.__all__]
    classes = [c for c in public if isinstance(c, type) and issubclass(c, BaseAutoencoder)]
    return sorted({inspect.getsourcefile(c) for c in classes})


@pytest.mark.parametrize("path", variant_files(), ids=lambda path: Path(path).stem)
def test_a_variant_is_short(path):
    assert code_lines(Path(path).read_text()) < VARIANT_LINES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: module_name(path, ROOT))
def test_files_and_functions_are_short(path):
    source = path.read_text()
    numbers = numbers_of_code_lines(source)
    assert len(numbers) <= FILE_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own = numbers & set(range(node.lineno, node.end_lineno + 1))
            assert len(own) <= FUNCTION_LINES, node.name


def test_few_files_are_at_the_top():
    assert len([path for path in SOURCES if path.parent == ROOT]) <= FILES_AT_THE_TOP
