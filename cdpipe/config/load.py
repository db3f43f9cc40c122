"""Reads a configuration file: YAML, presets, overrides, absolute paths, all mistakes at once."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from cdpipe.config.detectors import NAMED, named_folder, named_model
from cdpipe.config.presets import PRESETS
from cdpipe.config.schema import Config
from cdpipe.config.train import Model
from cdpipe.errors import ConfigError
from cdpipe.workspace.location import Location, here, locate

# Kinds of mistakes that pydantic tells in words of Python.
WORDS = {
    "tuple_type": "Input should be a list, as [a, b]",
    "list_type": "Input should be a list, as [a, b]",
    "dict_type": "Input should be a mapping, as {key: value}",
    "model_type": "Input should be a mapping, as {key: value}",
    "model_attributes_type": "Input should be a mapping, as {key: value}",
}
UNQUOTED = re.compile(r"[\[,:]\s*#[0-9a-fA-F]{6}\b")  # of a colour without quotes YAML reads a comment


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, except that ``1e-4`` is a number and a repeated key a mistake."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _mapping_without_repeats(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    repeated = sorted({str(key) for key in keys if keys.count(key) > 1})
    if repeated:
        line = node.start_mark.line + 1
        raise ConfigError(f"key written twice in the mapping that starts in line {line}: {', '.join(repeated)}")
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_without_repeats)


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read, merge and validate a configuration.

    Args:
        path: The YAML file; relative paths in it are relative to its folder.
        overrides: ``dotted.key=value`` strings, values in YAML; relative paths in them likewise.

    Raises:
        ConfigError: Naming every mistake: key, what arrived, what was expected.
    """
    return parse_config(_read_yaml(path), path.resolve().parent, overrides, str(path))


def parse_config(values: dict[str, Any], base: Path, overrides: Sequence[str] = (), where: str = "config") -> Config:
    """Validate a configuration given as a mapping; see :func:`load_config`."""
    values = _merge(values, parse_overrides(overrides))
    preset = values.get("preset")
    if isinstance(preset, str) and preset in PRESETS:
        values = _merge(PRESETS[preset], values)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        lines = describe_mistakes(error)
        raise ConfigError("\n".join([f"{where}: {len(lines)} mistake(s)", *lines])) from None
    return _absolute(config, base)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected a readable YAML file in UTF-8: {error}") from None
    try:
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        hint = '; # begins a comment, so colours need quotes, as "#ff0000"' if UNQUOTED.search(text) else ""
        if "escape sequence" in str(error):
            hint = "; in double quotes \\ is special: write / between folders"
        raise ConfigError(f"{path}: not valid YAML: {error}{hint}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of keys such as name, catalog, workspace, sensors")
    return values


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Nested mapping of ``dotted.key=value`` strings; of two for one key the later wins.

    Raises:
        ConfigError: If one is not of that form.
    """
    values: dict[str, Any] = {}
    for override in overrides:
        values = _merge(values, _parse_override(override))
    return values


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text}: expected key=value, for example predict.threshold=0.4")
    try:
        nested: Any = yaml.load(value, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError:
        raise ConfigError(f"--set {text}: the value is not valid YAML") from None
    for part in reversed(key.strip().split(".")):
        nested = {part: nested}
    return dict(nested)


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Mapping ``base`` with the values of ``top`` laid over it, level by level."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def describe_mistakes(error: ValidationError, root: type[BaseModel] = Config) -> list[str]:
    """One line a mistake; where a key takes several kinds of value, pydantic complains once for each."""
    mistakes: dict[str, list[str]] = {}
    for detail in error.errors():
        key, text = _describe(detail, root)
        mistakes.setdefault(key, []).append(text)
    return [
        f"  {key}: {texts[0]}{''.join(f', or {_expectation(text)}' for text in texts[1:])}"
        for key, texts in mistakes.items()
    ]


def _expectation(text: str) -> str:
    expected = text.partition("; ")[2].removeprefix("Input should be ")
    return expected[:1].lower() + expected[1:]


def _describe(detail: Any, root: type[BaseModel]) -> tuple[str, str]:
    # pydantic adds the tried member of a union to the location ("threshold.float"); drop what is not a key
    members = r"(constrained|function|literal|float|int|str|bool|list|dict)(\b|\[)"
    location = [str(part) for part in detail["loc"] if not re.match(members, str(part))]
    key = ".".join(location)
    if detail["type"] == "extra_forbidden":
        known = _known_keys(root, location[:-1])
        close = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        return key, f"unknown key; {hint}"
    if detail["type"] == "missing":
        return key, "missing; this key is required"
    expected = WORDS.get(detail["type"]) or detail["msg"].removeprefix("Value error, ")
    return key, f"got {detail['input']!r}; {expected}"


def _known_keys(root: type[BaseModel], location: list[str]) -> list[str]:
    """Keys that the section at ``location`` has."""
    section: Any = root
    for part in location:
        if _is_section(section) and part in section.model_fields:
            section = section.model_fields[part].annotation
            if type(None) in get_args(section):  # a section that may be left out
                section = next((each for each in get_args(section) if _is_section(each)), section)
        # a mapping such as sensors or train.models: its value's section follows the user's own name
        elif getattr(section, "__args__", None):
            section = section.__args__[-1]
    return list(section.model_fields) if _is_section(section) else []


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _tracked(address: str | None, base: Path) -> str | None:
    """An address as it is, a folder as an absolute path."""
    return address if address is None or "://" in address else str((base / Path(address).expanduser()).resolve())


def _absolute(config: Config, base: Path) -> Config:
    """The configuration with every path absolute."""

    def resolve(place: Location) -> Location:
        return locate(str(place), here(base)).resolve()

    def model_folder(place: Location) -> Location:
        return named_model(place, here(base))

    def with_places(model: Model) -> Model:
        weights = model.encoder_weights
        if weights and weights.file:
            weights = weights.model_copy(update={"file": resolve(weights.file)})
        start = model_folder(model.init_from) if model.init_from else None
        return model.model_copy(update={"init_from": start, "encoder_weights": weights})

    models = {name: with_places(model) for name, model in config.train.models.items()}
    return config.model_copy(
        update={
            "catalog": resolve(config.catalog),
            "workspace": resolve(config.workspace),
            "tracking": config.tracking.model_copy(update={"mlflow": _tracked(config.tracking.mlflow, base)}),
            "input": config.input.model_copy(update={"roots": tuple(map(resolve, config.input.roots))}),
            "train": config.train.model_copy(update={"models": models}),
            "predict": config.predict.model_copy(
                update={
                    "models": tuple(map(model_folder, config.predict.models)),
                    "members": tuple(
                        str(locate(name, here(base)).resolve()) if name in config.predict.files else name
                        for name in config.predict.members
                    ),
                }
            ),
        }
    )


def to_yaml(config: Config, base: Location) -> str:
    """Everything that is in force, spelled out, so that no preset is needed any more; paths relative to ``base``."""
    values = config.model_dump(mode="json", exclude={"preset"}, exclude_none=True)
    names = {str(named_folder(name)): name for name in NAMED}

    def shorten(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shorten(item) for key, item in value.items()}
        if isinstance(value, list):
            return [shorten(item) for item in value]
        if value in names:
            return names[value]
        if isinstance(value, str) and value.startswith(f"{base.resolve()}/"):
            return value.removeprefix(f"{base.resolve()}/")
        return value

    return yaml.safe_dump(shorten(values), sort_keys=False, allow_unicode=True, width=100)
