"""ARCHITECTURE.md lists every module, in the words of the module itself."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_architecture_lists_every_module_in_its_own_words() -> None:
    listed = set(re.findall(r"^- `(cdpipe/\S+\.py)`: (.+)$", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE))
    modules = {
        (str(path.relative_to(ROOT)), _first_line(path))
        for path in (ROOT / "cdpipe").rglob("*.py")
        if path.name != "__init__.py" or path.parent.name == "cdpipe"
    }
    assert listed == modules


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return text.split("\n", maxsplit=1)[0].replace("``", "`")
