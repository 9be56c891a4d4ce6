"""How the documentation is built: sphinx, numpydoc and a gallery of the examples."""

from pathlib import Path

import skae

project = "skae"
copyright = "2026, The skae developers"
version = release = skae.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "*_table.rst"]
html_theme = "pydata_sphinx_theme"
html_title = "skae"
html_show_sourcelink = False

# A new public name needs no edit here: the page lists what the package exports.
api = Path(__file__).with_name("generated") / "api.rst"
api.parent.mkdir(exist_ok=True)
api.write_text(
    "\n".join(
        ["API", "===", "", ".. currentmodule:: skae", "", ".. autosummary::", "   :toctree: .", ""]
        + [f"   {name}" for name in skae.__all__]
    )
    + "\n"
)
autosummary_generate = True
numpydoc_show_class_members = True
numpydoc_show_inherited_class_members = True
numpydoc_class_members_toctree = False
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_",
    "ignore_pattern": r"benchmarks|quickstart",
    "download_all_examples": False,
    "show_memory": False,
}
