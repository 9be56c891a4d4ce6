"""The tables of docs/adding.rst: they name all members of the parts, and files that use them."""

import ast
import inspect
import re
import textwrap
from pathlib import Path

import pytest

import skae
from skae.nn.bodies.body import Architecture
from skae.nn.bodies.layers import Residual
from skae.nn.latent import Discrete, Latent, Stochastic
from skae.nn.likelihoods.base import Likelihood
from skae.nn.prior import Prior

PACKAGE = Path(skae.__file__).parent
PAGE = PACKAGE.parent / "docs" / "adding.rst"
SECTIONS = {
    "Latents": (Latent, Stochastic, Discrete),
    "Likelihoods": (Likelihood,),
    "Priors": (Prior,),
    "Architectures": (Architecture, Residual),
}

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not installed")


def entries(title):
    """Names of members in the tables of a section, and the files that are said to use them."""
    section = PAGE.read_text().split(f"\n{title}\n{'-' * len(title)}\n")[1].split("\n---")[0]
    rows = re.findall(r"   \* - (.*)\n     - .*\n     - (.*)\n", section)
    for names, files in rows:
        for name in re.findall(r"``(\w+)", names):
            yield name, re.findall(r"``(.*?)``", files)


def members(kind):
    """Public attributes and methods that a class defines, those of its instances included."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    targets = [target for n in ast.walk(tree) if isinstance(n, ast.Assign) for target in n.targets]
    nodes = [node for target in targets for node in ast.walk(target)]
    assigned = [node.attr for node in nodes if isinstance(node, ast.Attribute)]
    names = [*vars(kind), *inspect.get_annotations(kind), *assigned]
    return {name for name in names if not name.startswith("_")}


@pytest.mark.every_case
@pytest.mark.parametrize("title", SECTIONS)
def test_every_member_is_in_a_table(title):
    documented = {name for name, _ in entries(title)}
    assert documented == set().union(*map(members, SECTIONS[title]))


@pytest.mark.every_case
@pytest.mark.parametrize("title", SECTIONS)
def test_the_named_files_use_the_members(title):
    for name, files in entries(title):
        assert files, f"{name} is used by no file"
        for file in files:
            source = (PACKAGE / file).read_text()
            called = name == "forward" or re.search(rf"\.{name}\b", source)
            assert called, f"{file} does not use {name}"
