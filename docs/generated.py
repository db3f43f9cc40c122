"""The reference, made from the code whenever the documentation is built."""

import argparse
import ast
import inspect
import itertools
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import cdpipe
from cdpipe.cli.parser import make_parser
from cdpipe.cli.verb import EPILOG
from cdpipe.config.augment import OWN, Transform
from cdpipe.config.schema import Config
from cdpipe.workspace.location import Location

WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Location: "a path"}


def write_reference(folder: Path) -> None:
    """Write the pages of the reference.

    Args:
        folder: Where to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "configuration.md").write_text("\n".join(configuration()) + "\n")
    (folder / "commands.md").write_text("\n".join(commands()) + "\n")
    (folder / "library.md").write_text("\n".join(library()) + "\n")


def configuration() -> Iterator[str]:
    """Every section and key, as the code that reads them says."""
    yield "# Configuration"
    yield "\nOne YAML file; paths are relative to it. All mistakes are listed at once; an unknown key is one."
    transforms = ((f"train.augment: {name}", section) for name, section in OWN.items())
    for path, section in [*sections(Config, ""), *transforms]:
        yield f"\n## {path or 'The whole file'}\n"
        yield inspect.cleandoc(section.__doc__ or "").replace("``", "`")
        yield "\n| key | meaning | values | default |\n|---|---|---|---|"
        for name, field in section.model_fields.items():
            what = "; ".join(filter(None, (describe(field.annotation), limits(field))))
            yield f"| `{name}` | {meaning(section, name)} | {what} | {default(field)} |"


def sections(section: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """A section and those within it, each with its place, such as ``train.models.NAME``."""
    yield path, section
    for name, field in section.model_fields.items():
        for found, step in parts(field.annotation):
            yield from sections(found, f"{path}.{name}{step}".removeprefix("."))


def parts(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    """Sections that a type holds, each with how one gets there."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, ""
    for argument in get_args(annotation):
        step = ".NAME" if get_origin(annotation) is dict else ""
        yield from ((found, step + more) for found, more in parts(argument))


def meaning(section: type[BaseModel], key: str) -> str:
    """What stands beneath a key in the code; of a section that says enough by itself, its first sentence."""
    own = [each for each in section.__mro__ if key in vars(each).get("__annotations__", {})]
    body = ast.parse(inspect.getsource(own[0])).body[0].body  # type: ignore[attr-defined]
    text = ""
    for field, beneath in itertools.pairwise([*body, None]):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.target.id == key:
            text = beneath.value.value if isinstance(beneath, ast.Expr) else ""  # type: ignore[attr-defined]
    within = next((found for found, step in parts(section.model_fields[key].annotation) if not step), None)
    text = text or inspect.cleandoc((within and within.__doc__) or "").partition("\n")[0]
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


def describe(annotation: Any) -> str:
    """A type in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation == Transform:
        words = "a transform's name, or its name with its arguments"
    elif origin is Literal:
        words = ", ".join(f"`{value}`" for value in arguments)
    elif origin in (Union, types.UnionType):
        words = " or ".join(describe(each) for each in arguments if each is not type(None))
    elif origin is dict:
        words = f"names, each with {describe(arguments[1])}"
    elif origin in (tuple, list):
        words = f"a list; each is {describe(arguments[0])}"
    elif origin is Annotated:
        words = describe(arguments[0])
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        words = "a section"
    else:
        words = WORDS.get(annotation, str(annotation))
    return words


def limits(field: FieldInfo) -> str:
    """What a number or a list is held to."""
    signs = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than", "multiple_of": "a multiple of"}
    found = (
        f"{words} {getattr(each, sign)}"
        for each in field.metadata
        for sign, words in signs.items()
        if getattr(each, sign, None) is not None
    )
    return ", ".join(found)


def default(field: FieldInfo) -> str:
    """A default as YAML would have it."""
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, BaseModel):
        return ""
    if isinstance(field.default, dict):
        return ", ".join(f"`{name}`" for name in field.default) or "none"
    if field.default is None or field.default == ():
        return "none"
    if isinstance(field.default, tuple):
        return f"`{list(field.default)}`"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def commands() -> Iterator[str]:
    """What ``--help`` says of every verb."""
    parser = make_parser()
    yield "# Commands\n"
    yield f"`cdpipe VERB --help` prints the same. {EPILOG[0].upper()}{EPILOG[1:]}."
    for name, verb in verbs(parser):
        yield f"\n## cdpipe {name}\n"
        formatter = argparse.HelpFormatter(prog=f"cdpipe {name}", width=100)
        formatter.add_usage(verb.usage, verb._actions, verb._mutually_exclusive_groups)  # noqa: SLF001
        for group in verb._action_groups:  # noqa: SLF001
            formatter.start_section(group.title)
            formatter.add_arguments(group._group_actions)  # noqa: SLF001
            formatter.end_section()
        yield f"```text\n{formatter.format_help().rstrip()}\n```"


def library() -> Iterator[str]:
    """Every function and value that ``import cdpipe`` offers."""
    yield "# Library\n"
    yield markdown(cdpipe.__doc__ or "").partition("\n")[2].strip()
    for name in sorted(set(cdpipe.__all__) - {"__version__"}, key=str.lower):
        offered = getattr(cdpipe, name)
        signature = re.sub(r"<function (\w+) at \w+>", r"\1", str(inspect.signature(offered)))
        signature = re.sub(r"(?:[A-Za-z_]+[.])+([A-Za-z_])", r"\1", signature)
        yield f"\n## cdpipe.{name}\n\n```text\n{name}{signature}\n```\n"
        yield markdown(offered.__doc__ or "")


def markdown(text: str) -> str:
    """A docstring, its sections as lists."""
    text = re.sub(r":(?:class|func|mod|data|meth):`(?:cdpipe\.)?([^`]+)`", r"`\1`", inspect.cleandoc(text)).replace(
        "``", "`"
    )
    text = re.sub(r"^(Args|Attributes|Raises|Returns|Yields):$", r"\n**\1**\n", text, flags=re.MULTILINE)
    text = re.sub(r"^ {4}(\*?\w+(?:, \w+)*): ", r"- `\1`: ", text, flags=re.MULTILINE)
    return re.sub(r"^ {4,}", "  ", text, flags=re.MULTILINE)


def verbs(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every verb with its parser; those that have verbs of their own with theirs."""
    for action in parser._actions:  # noqa: SLF001 (argparse tells nowhere else)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for name, verb in action.choices.items():
                within = [(f"{name} {own}", each) for own, each in verbs(verb)]
                yield from within or [(name, verb)]
