"""What README and documentation show is run."""

import doctest
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


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


def test_documentation_examples_run():
    """Every prompt in the pages of the documentation."""
    for page in sorted((ROOT / "docs").glob("*.rst")):
        assert doctest.testfile(str(page), module_relative=False).failed == 0


def test_included_tables_are_not_empty():
    for page in sorted((ROOT / "docs").glob("*.rst")):
        for name in re.findall(r"include:: (\S+)", page.read_text()):
            assert "list-table" in (ROOT / "docs" / name).read_text(), name
