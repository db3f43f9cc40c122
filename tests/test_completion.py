"""Shells complete verbs, options, their values and files by what the program prints."""

import shutil
import subprocess
from pathlib import Path

import pytest
from project import succeed

from cdpipe.cli.parser import VERBS

ASK = """
{script}
COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_cdpipe
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def complete(folder: Path, *words: str) -> set[str]:
    """What bash offers for the last of some words."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    line = " ".join(f"'{word}'" for word in ("cdpipe", *words))
    script = ASK.format(script=succeed(["completion", "bash"]).out, line=line)
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    assert not done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("pr",), {"predict"}),
        (("predict", "--bef"), {"--before", "--before-valid"}),
        (("export", "m", "--format", ""), {"onnx", "pt2", "openvino"}),
        (("export", "m", "--format", "o"), {"onnx", "openvino"}),
        (("catalog", ""), {"original", "folders", "oscd", "patterns"}),
        (("catalog", "patterns", "d", "--lab"), {"--label"}),
        (("check", "mi"), {"mine.yaml"}),
        (("predict", "--before", ""), {"mine.yaml", "a.tif"}),
    ],
)
def test_bash_offers_what_fits(tmp_path: Path, words: tuple[str, ...], offered: set[str]) -> None:
    for name in ("mine.yaml", "a.tif"):
        (tmp_path / name).touch()
    assert complete(tmp_path, *words) == offered


def test_all_verbs_are_offered(tmp_path: Path) -> None:
    assert complete(tmp_path, "") == {verb.name for verb in VERBS}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_of_the_shell(shell: str) -> None:
    script = succeed(["completion", shell]).out
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_fish_is_told_of_every_verb() -> None:
    script = succeed(["completion", "fish"]).out
    assert all(f"__fish_seen_subcommand_from {verb.name}'" in script for verb in VERBS)
    assert "__fish_seen_subcommand_from export' -l format -x -a 'onnx pt2 openvino'" in script
