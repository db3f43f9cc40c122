"""The documentation builds without a warning, and every command in it runs."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from cdpipe.cli.parser import make_parser
from cdpipe.config.load import parse_config
from cdpipe.config.schema import Config

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts)
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """What the reader is told to type."""
    blocks = CONSOLE.findall(page.read_text())
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.timeout(120)
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    copy = tmp_path / "docs"
    shutil.copytree(ROOT / "docs", copy, ignore=shutil.ignore_patterns("_build"))
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-n", str(copy), str(tmp_path / "site")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    built = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert built.returncode == 0, built.stderr
    assert "samples_per_pair" in (tmp_path / "site" / "reference" / "configuration.html").read_text()
    assert "--keep-going" in (tmp_path / "site" / "reference" / "commands.html").read_text()


def test_every_key_of_the_reference_says_what_it_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """From where it is declared, so that it cannot go stale."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    import generated  # noqa: PLC0415 (found through the line above)

    rows = [line.split(" | ") for line in generated.configuration() if line.startswith("| `")]
    assert len(rows) > 100
    mute = [row[0] for row in rows if len(row[1].strip()) < 8]
    assert mute == []
    assert "1-based band number" in next(row[1] for row in rows if row[0] == "| `bands`")


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = (ROOT / "docs" / "index.md").read_text().splitlines()
    names = {str(page.relative_to(ROOT / "docs").with_suffix("")) for page in PAGES} - {"index"}
    assert names <= set(listed)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_understood(page: Path) -> None:
    for line in commands(page):
        first, *words = shlex.split(line)
        assert first in ("cdpipe", "cd"), line
        if first == "cdpipe":
            make_parser().parse_args(words)


def test_the_whole_configuration_has_every_key_with_its_default(tmp_path: Path) -> None:
    """But for what has none, and for the models that are an example."""
    page = (ROOT / "docs" / "configuration.md").read_text()
    values = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0])
    required = {name: values[name] for name in ("name", "catalog", "workspace", "sensors")}
    least = parse_config({**required, "train": {"models": values["train"]["models"]}}, tmp_path)
    assert parse_config(values, tmp_path) == least
    assert set(values) == set(Config.model_fields)
    for name, section in values.items():
        kind = Config.model_fields[name].annotation
        if name not in required and isinstance(kind, type) and issubclass(kind, BaseModel):
            told = set(section) | set(re.findall(r"# .*?\b([a-z_]+): ", page))  # or in a comment, what excludes another
            assert set(kind.model_fields) <= told, f"{name}: {set(kind.model_fields) - told}"


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+?)(?:#[\w-]*)?\)", page.read_text()):
        made = (page.parent / link).resolve().parent.name == "reference"  # when the site is built
        assert made or "://" in link or (page.parent / link).exists(), link


@pytest.mark.heavy
@pytest.mark.timeout(3600)
def test_every_command_runs(tmp_path: Path) -> None:
    """The tutorial's first; the others in its folder."""
    program = Path(sys.executable).with_name("cdpipe")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    folder = tmp_path
    tutorial = ROOT / "docs" / "tutorial.md"
    for page in (tutorial, *(page for page in PAGES if page != tutorial)):
        for line in commands(page):
            first, *words = shlex.split(line)
            if first == "cd":
                folder /= words[0]
                continue
            ran = subprocess.run(
                [program, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            assert ran.returncode == 0, f"{page.name}: {line}\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}"
    assert len(list((folder / "work" / "runs" / "demo" / "rasters").glob("*_change.tif"))) == 8
