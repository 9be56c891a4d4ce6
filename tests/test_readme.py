"""What README and documentation show is run."""

import doctest
import inspect
import re
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

import skae
from skae import metrics

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# The gallery leaves a page of its own.
PAGES = sorted(
    {*DOCS.glob("*.rst"), *DOCS.glob("families/*.rst")} - {DOCS / "sg_execution_times.rst"}
)

TASKS = (
    "swap-pca",
    "validating",
    "data-frames",
    "mixed",
    "plot-codes",
    "components",
    "outliers",
    "features",
    "labels",
    "families/denoising",
    "generate",
    "keep-a-model",
    "adding",
)
"""Where a new user's tasks are found: a page, or a label of one."""


def test_readme_python_blocks_run(capsys):
    """One after the other, as a reader would paste them."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(block, namespace)
    accuracy, *reasons = capsys.readouterr().out.splitlines()
    assert 0.9 < float(accuracy) <= 1
    assert any(line.split() == ["7", "alcohol"] for line in reasons)


def test_readme_has_exactly_two_commands():
    """The continuous integration runs just these."""
    shell = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(shell) == 2
    assert all(block.count("\n") == 1 for block in shell)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.slow
def test_documentation_examples_run(page):
    """Every prompt in the pages of the documentation."""
    assert doctest.testfile(str(page), module_relative=False).failed == 0
    plt.close("all")


def test_documentation_has_no_code_that_is_not_run():
    """Code is a prompt, a file of the package, or a command."""
    for page in PAGES:
        blocks = re.findall(r"\.\. code-block:: (\w+)", page.read_text())
        assert set(blocks) <= {"sh"}, page
        for name in re.findall(r"literalinclude:: (\S+)", page.read_text()):
            assert (page.parent / name).is_relative_to(DOCS / "../skae"), page


def test_included_tables_are_not_empty():
    for page in PAGES:
        for name in re.findall(r"include:: (\S+_table.rst)", page.read_text()):
            assert "list-table" in (page.parent / name).read_text(), name


def test_every_table_is_shown():
    shown = {
        (page.parent / name).resolve()
        for page in PAGES
        for name in re.findall(r"include:: (\S+_table.rst)", page.read_text())
    }
    assert shown == set(DOCS.glob("*_table.rst"))


def test_every_page_is_in_a_table_of_contents():
    listed = set()
    for page in PAGES:
        for block in re.findall(r"\.\. toctree::\n((?:   .*\n|\n)+)", page.read_text()):
            listed |= {name.strip() for name in block.splitlines() if ":" not in name}
    names = {str(page.relative_to(DOCS).with_suffix("")) for page in PAGES} - {"index"}
    names = {name for name in names if not name.endswith("_table")}
    assert names <= listed


def test_a_new_users_tasks_are_one_click_from_the_first_page():
    first = (DOCS / "index.rst").read_text()
    table = first[first.index("list-table") : first.index("toctree")]
    assert re.findall(r":(?:doc|ref):`([^`]+)`", table) == list(TASKS)
    labels = {
        name for page in PAGES for name in re.findall(r"^\.\. _(.+):$", page.read_text(), re.M)
    }
    assert all(task in labels or (DOCS / f"{task}.rst").exists() for task in TASKS)


PUBLIC = {name: getattr(skae, name) for name in skae.__all__ if name != "metrics"} | {
    f"metrics.{name}": getattr(metrics, name) for name in metrics.__all__
}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example(name):
    """Which the doctests run."""
    examples = inspect.getdoc(PUBLIC[name]).split("Examples\n--------\n")
    assert len(examples) == 2
    assert ">>> " in examples[1]
