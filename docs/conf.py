"""How Sphinx builds the documentation: ``make docs``."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import generated  # noqa: E402 (found through the line above)

from cdpipe.version import __version__  # noqa: E402

project, author, release = "cdpipe", "the cdpipe developers", __version__
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"cdpipe {__version__}"
exclude_patterns = ["_build"]

generated.write_reference(HERE / "reference")
