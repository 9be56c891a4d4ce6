"""How the documentation is built: sphinx, numpydoc and a gallery of the examples."""

from pathlib import Path

from docutils import nodes
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
    "sphinx-mathjax-offline",  # formulas are drawn without a network
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "*_table.rst"]
templates_path = ["_templates"]

html_theme = "pydata_sphinx_theme"
html_title = "skae"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["skae.css"]
html_theme_options = {
    "navbar_align": "left",
    "show_toc_level": 2,
}
# Without pages of its own, the first page's section navigation would be empty.
html_sidebars = {name: [] for name in ("index", "genindex", "search")}
toc_object_entries_show_parents = "hide"
mathjax_path = "mathjax/tex-chtml.js"

# As in scikit-learn, a signature has one parameter per line; types are in the descriptions.
maximum_signature_line_length = 80
autodoc_typehints = "none"
autosummary_generate = True
numpydoc_show_class_members = True
numpydoc_show_inherited_class_members = True
numpydoc_class_members_toctree = False

# A new public name needs no edit here: the page lists what the package exports.
public = {name: getattr(skae, name) for name in skae.__all__ if name != "metrics"}
classes = {name for name, thing in public.items() if isinstance(thing, type)}
estimators = {name for name in classes if issubclass(public[name], BaseEstimator)}
autoencoders = {name for name in estimators if issubclass(public[name], BaseAutoencoder)}
displays = {name for name in classes if name.endswith("Display")}
SECTIONS = {
    "Autoencoders": autoencoders,
    "Estimators over an autoencoder": estimators - autoencoders,
    "Displays": displays,
    "Model selection, saving and callbacks": public.keys() - estimators - displays,
    "Metrics": {f"metrics.{name}" for name in skae.metrics.__all__},
}
api = Path(__file__).with_name("generated") / "api.rst"
api.parent.mkdir(exist_ok=True)
lines = ["API", "===", "", ".. currentmodule:: skae", ""]
for title, names in SECTIONS.items():
    lines += [title, "-" * len(title), "", ".. autosummary::", "   :toctree: .", ""]
    lines += [f"   {name}" for name in sorted(names)] + [""]
api.write_text("\n".join(lines))

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_",
    "ignore_pattern": r"benchmarks|quickstart",
    "within_subsection_order": "ExampleTitleSortKey",
    "doc_module": "skae",
    "reference_url": {"skae": None},  # names in the code of an example link to their pages
    "capture_repr": ("_repr_html_",),  # what a figure's last call returns is not shown
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,  # that page loads scripts from the network
    "parallel": 2,  # fits use one thread each
}

SKLEARN = "https://scikit-learn.org/stable/"
# What the docstrings of inherited methods refer to, beside classes and functions.
SKLEARN_PAGES = {
    "accuracy_score": "modules/model_evaluation.html#accuracy-score",
    "df_output_transform": "modules/df_output_transform.html",
    "meta-estimator": "glossary.html#term-meta-estimator",
    "metadata_routing": "metadata_routing.html",
    "r2_score": "modules/model_evaluation.html#r2-score",
    "sphx_glr_auto_examples_miscellaneous_plot_set_output.py": (
        "auto_examples/miscellaneous/plot_set_output.html"
    ),
}


def link_to_sklearn(app, env, node, contnode):
    """Link names and labels of scikit-learn to its site, which the build need not reach."""
    target = node["reftarget"]
    page = SKLEARN_PAGES.get(target)
    if target.startswith("sklearn."):
        page = f"modules/generated/{target}.html"
    if page is None:
        return None
    return nodes.reference("", "", contnode, internal=False, refuri=SKLEARN + page)


def setup(app):
    app.connect("missing-reference", link_to_sklearn)
