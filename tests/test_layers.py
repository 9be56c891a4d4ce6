"""Who may import whom (DESIGN, section 2), and how long a variant may be."""

import ast
import inspect
import sys
from pathlib import Path

import pytest

import skae
from skae.base import BaseAutoencoder

ROOT = Path(skae.__file__).parent

ARROWS = {
    "parameters": {"stdlib"},
    "holdout": {"stdlib", "numpy"},
    "nn": {"stdlib", "torch", "skae.nn"},
    "_compat": {"stdlib", "torch"},
    "laplace": {"stdlib", "torch", "skae._compat", "skae.nn"},
    "density": {"stdlib", "torch", "skae.laplace", "skae.nn"},
    "files": {"stdlib", "numpy", "safetensors"},
    "training": {"stdlib", "numpy", "torch", "sklearn", "skorch", "skae.files", "skae.nn"},
    "base": {
        "stdlib", "numpy", "torch", "sklearn",
        "skae.parameters", "skae.training", "skae.density", "skae.holdout", "skae.persistence",
        "skae.shapes", "skae.nn",
    },
    "variant": {"stdlib", "numpy", "torch", "sklearn", "skae.base", "skae.nn"},
    "scores": {"stdlib", "numpy", "sklearn", "skae.persistence"},
    "outlier": {
        "stdlib", "numpy", "pandas", "sklearn",
        "skae.base", "skae.autoencoder", "skae.parameters", "skae.persistence", "skae.holdout",
        "skae.scores",
    },
    "labels": {"stdlib", "numpy", "sklearn"},
    "answers": {"stdlib", "numpy", "torch", "sklearn", "skae.labels", "skae.nn"},
    "given": {
        "stdlib", "numpy", "pandas", "sklearn",
        "skae.base", "skae.holdout", "skae.persistence", "skae.nn",
    },
    "audit": {"stdlib", "numpy", "pandas", "sklearn", "skae.labels"},
    "supervised": {
        "stdlib", "numpy", "torch", "sklearn",
        "skae.base", "skae.autoencoder", "skae.answers", "skae.labels", "skae.parameters",
        "skae.persistence", "skae.nn",
    },
    "shapes": {"stdlib", "numpy", "skae.nn"},
    "persistence": {"stdlib", "skae.files"},
    "metrics": {"stdlib", "numpy", "sklearn", "skae.audit"},
    "model_selection": {"stdlib", "numpy", "pandas", "sklearn"},
    "plotting": {"stdlib", "numpy", "sklearn", "matplotlib", "skae.model_selection"},
}  # fmt: skip
"""What each file may import: parts of `skae`, the standard library and other packages."""

PARENTS = {
    "conditional": {"skae.variational", "skae.given"},
    "fair": {
        "pandas", "skae.variational", "skae.given", "skae.labels", "skae.answers", "skae.audit",
    },
    "semisupervised": {"skae.labels"},
}  # fmt: skip
"""What some variants may import beside: the parent of a variant of a variant, what y says and what
follows of it from codes, columns that are given, and what codes tell."""

VARIANT_LINES = 80


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
    """The part that an imported name belongs to, as the table calls it."""
    first, *rest = name.split(".")
    if first == "skae":
        return ".".join([first, *rest[:1]])
    return "stdlib" if first in sys.stdlib_module_names else first


def allowed(module: str) -> set[str]:
    _, *rest = module.split(".")
    if not rest:
        return set()
    key = rest[0]
    return ARROWS.get(key, ARROWS["variant"] | PARENTS.get(key, set()))


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """Imports of a module that the arrows do not have."""
    if module == "skae":
        return [n for n in imported(source, module, True) if layer(n).split(".")[0] != "skae"]
    permitted = allowed(module)
    return [n for n in imported(source, module, is_package) if layer(n) not in permitted]


SOURCES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: module_name(path, ROOT))
def test_imports_follow_the_arrows(path):
    module = module_name(path, ROOT)
    assert violations(path.read_text(), module, path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("skae.nn.mlp", "import sklearn"),
        ("skae.nn.mlp", "from skorch import NeuralNet"),
        ("skae.nn.mlp", "from skae.base import BaseAutoencoder"),
        ("skae.nn.mlp", "from ..training import Net"),
        ("skae.nn.mlp", "def late():\n    import sklearn.base"),
        ("skae.base", "from skorch.history import History"),
        ("skae.base", "from skae.autoencoder import Autoencoder"),
        ("skae.base", "from skae import autoencoder"),
        ("skae.parameters", "import numpy"),
        ("skae.holdout", "import torch"),
        ("skae.density", "from skae.training import Net"),
        ("skae.density", "import sklearn"),
        ("skae.training", "from skae.base import BaseAutoencoder"),
        ("skae.variational", "from skae.autoencoder import Autoencoder"),
        ("skae.variational", "from .autoencoder import Autoencoder"),
        ("skae.variational", "from skae.training import Net"),
        ("skae.metrics", "from skae.base import BaseAutoencoder"),
        ("skae.files", "import torch"),
        ("skae.persistence", "from skae.base import BaseAutoencoder"),
        ("skae", "import torch"),
    ],
)
def test_a_planted_import_is_caught(module, source):
    assert violations(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "skae.nn.mlp",
            "import math\nimport torch.nn\nfrom skae.nn.draws import Draws",
        ),
        ("skae.nn.mlp", "from .draws import Draws"),
        ("skae.training", "from skorch import NeuralNet"),
        ("skae.conditional", "from skae.variational import Variational"),
        ("skae", "from skae.autoencoder import Autoencoder"),
    ],
)
def test_a_permitted_import_passes(module, source):
    assert violations(source, module) == []


def test_only_training_imports_skorch():
    users = [
        path.name
        for path in SOURCES
        if "skorch" in {layer(n) for n in imported(path.read_text(), module_name(path, ROOT))}
    ]
    assert users == ["training.py"]


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


def code_lines(source: str) -> int:
    """Lines of code: no docstrings, imports, blank lines or comments."""
    tree = ast.parse(source)
    left_out: set[int] = set()
    for node in ast.walk(tree):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        text = text and isinstance(node.value.value, str)
        if text or isinstance(node, ast.Import | ast.ImportFrom):
            left_out |= set(range(node.lineno, node.end_lineno + 1))
    lines = enumerate(source.splitlines(), start=1)
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in left_out
        for number, line in lines
    )


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
