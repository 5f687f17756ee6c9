"""Sphinx: `make docs` builds the site into docs/_build/html, without reaching the network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the package `pages`
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import asks the network otherwise

from smp_camvid import __version__

project = "smp-camvid"
author = "The smp-camvid maintainers"
copyright = author
version = release = __version__

extensions = [
    "pages",  # ours: what is generated from the code, and links to it
    "myst_nb",  # Markdown as GitHub shows it, and the notebook
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "figures", "pages"]
nitpicky = False  # docstrings name types of libraries whose inventories are on the network

# Fences without a language are commands; everything else says what it is.
highlight_language = "bash"
pygments_style, pygments_dark_style = "tango", "monokai"

myst_heading_anchors = 3

# The notebook is committed without outputs and runs when the site is built; `make docs` keeps the
# outputs in docs/_build until the notebook changes.
nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_output_stderr = "remove"  # warnings of other libraries about their progress bars
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # scripts from a content network, for widgets

default_role = "literal"  # `x` in a docstring is code
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_type_aliases = {name: name for name in ("Picture", "Array", "Size", "Classes", "Mask")}
add_module_names = False
python_use_unqualified_type_names = True
viewcode_line_numbers = True

html_theme = "furo"
html_title = f"smp-camvid {__version__}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_search_summary = False  # fetched page by page, which a browser refuses from disk
html_theme_options = {"top_of_page_buttons": []}
