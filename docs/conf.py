"""Configuration of Sphinx."""

import shutil
import socket
from pathlib import Path

import scgde

project = "scgde"
author = "The scgde developers"
copyright = f"2026, {author}"
release = scgde.__version__

docs = Path(__file__).parent
# Sphinx reads only what lies in its own folder.
shutil.copytree(docs.parent / "tutorials", docs / "tutorials", dirs_exist_ok=True)
results = sorted((docs.parent / "benchmarks" / "results").glob("*.txt"))
include = "### {0}\n\n```{{literalinclude}} ../benchmarks/results/{0}\n:language: text\n```\n"
(docs / "_results.md").write_text("\n".join(include.format(file.name) for file in results), encoding="utf-8")


def online() -> bool:
    """Whether other projects' indices can be had: without a network, links to them are left out."""
    try:
        socket.create_connection(("docs.python.org", 443), timeout=5).close()
    except OSError:
        return False
    return True


extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxcontrib.bibtex",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_results.md", "_templates", "**.ipynb_checkpoints"]
nitpicky = True
# What is not ours is linked where an index is at hand, and is no error where not; private parts have no page.
nitpick_ignore_regex = [("py:.*", r"(?!scgde\b).*|scgde\.data\._.*")]

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_mock_imports = ["cellrank"]  # an extra
autodoc_typehints = "description"  # types live in the signatures only
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_rtype = False
bibtex_bibfiles = ["references.bib"]

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the tests run the notebooks
nb_merge_streams = True
nb_output_stderr = "remove"

intersphinx_mapping = (
    {}
    if not online()
    else {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "lightning": ("https://lightning.ai/docs/pytorch/stable/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3/", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
        "scipy": ("https://docs.scipy.org/doc/scipy/", None),
        "scvi": ("https://docs.scvi-tools.org/en/stable/", None),
        "sklearn": ("https://scikit-learn.org/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }
)

html_theme = "sphinx_book_theme"
html_title = project
html_theme_options = {
    "repository_url": "https://github.com/scgde/scgde",
    "use_repository_button": True,
    "path_to_docs": "docs/",
}
