"""The site of the documentation: `make docs` builds it with Sphinx and MyST."""

import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = html_title = "sp_jax"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "docs.site.extension",
]
exclude_patterns = ["_build", "studies", "site"]
html_theme = "furo"
smartquotes = False  # --flag keeps its two dashes
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

# Types of other libraries are named, and lead nowhere.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!sp_jax).*")]
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the signature has them
myst_heading_anchors = 3
linkcheck_timeout = 20

# Tutorials run in a new folder each, as in an environment with sp_jax in it.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 600
# Tutorials that are shown without outputs, as in WITHOUT="tutorials/cluster.md".
nb_execution_excludepatterns = os.environ.get("WITHOUT", "").split()
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_render_markdown_format = "myst"
nb_output_stderr = "remove"  # how far a program is
nb_ipywidgets_js = {}  # it would come from another site
_SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / "docs/_build/cache/xla"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    "SP_JAX_DATA": str(ROOT / "docs/_build/cache/data"),
    # Most programs run for seconds.
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
}
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)
os.environ["PATH"] = os.pathsep.join(
    [os.path.dirname(sys.executable), os.environ["PATH"]]
)
os.environ["PYTHONPATH"] = str(ROOT)
os.environ["SHELLOPTS"] = "errexit:pipefail"  # a failed command fails its cell
