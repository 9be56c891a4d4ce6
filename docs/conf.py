"""How the documentation is built: sphinx, numpydoc and a gallery of the examples."""

from pathlib import Path

from sklearn.base import BaseEstimator

import skae
from skae.base import BaseAutoencoder

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
public = {name: getattr(skae, name) for name in skae.__all__ if name != "metrics"}
estimators = {n for n, thing in public.items() if isinstance(thing, type(skae.Autoencoder))}
estimators = {n for n in estimators if issubclass(public[n], BaseEstimator)}
autoencoders = {n for n in estimators if issubclass(public[n], BaseAutoencoder)}
displays = {name for name in public if name.endswith("Display")}
SECTIONS = {
    "Autoencoders": autoencoders,
    "Estimators over an autoencoder": estimators - autoencoders,
    "Pictures": displays,
    "Paths, files and callbacks": public.keys() - estimators - displays,
    "Metrics": {f"metrics.{name}" for name in skae.metrics.__all__},
}
api = Path(__file__).with_name("generated") / "api.rst"
api.parent.mkdir(exist_ok=True)
lines = ["API", "===", "", ".. currentmodule:: skae", ""]
for title, names in SECTIONS.items():
    lines += [title, "-" * len(title), "", ".. autosummary::", "   :toctree: .", ""]
    lines += [f"   {name}" for name in sorted(names)] + [""]
api.write_text("\n".join(lines))
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
    "parallel": 2,  # fits use one thread each
}
