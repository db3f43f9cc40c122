"""Content keys: what they depend on, and what they do not."""

import json
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdpipe.keys import FORMATS, content_key

NAMES = st.sampled_from("abcd")
SCALARS = st.none() | st.booleans() | st.integers(0, 3) | st.floats(allow_nan=False) | st.text(max_size=2)
LISTS = st.lists(SCALARS, max_size=2)
INGREDIENTS = st.dictionaries(NAMES, SCALARS | LISTS | st.dictionaries(NAMES, SCALARS | LISTS, max_size=3), max_size=3)


def shuffled(value: object) -> object:
    """The same value with every dictionary's keys in reverse order."""
    if isinstance(value, dict):
        return {key: shuffled(item) for key, item in reversed(value.items())}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@given(ingredients=INGREDIENTS)
def test_a_key_is_twelve_hexadecimal_digits_of_the_content_whatever_its_order(ingredients: dict[str, object]) -> None:
    key = content_key("pair", ingredients)
    assert re.fullmatch("[0-9a-f]{12}", key)
    other = shuffled(ingredients)
    assert isinstance(other, dict)
    assert content_key("pair", other) == key
    assert content_key("pair", json.loads(json.dumps(ingredients))) == key


@given(one=INGREDIENTS, other=INGREDIENTS)
def test_other_content_has_another_key(one: dict[str, object], other: dict[str, object]) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (content_key("pair", one) == content_key("pair", other)) == same


def test_every_kind_of_result_has_its_own_keys() -> None:
    assert len({content_key(kind, {"a": 1}) for kind in FORMATS}) == len(FORMATS)


def test_a_new_format_number_makes_all_of_its_kind_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {kind: content_key(kind, {"a": 1}) for kind in FORMATS}
    monkeypatch.setitem(FORMATS, "label", FORMATS["label"] + 1)
    assert [kind for kind in FORMATS if content_key(kind, {"a": 1}) != keys[kind]] == ["label"]


def test_a_key_is_the_same_in_every_process() -> None:
    code = "from cdpipe.keys import content_key; print(content_key('change', {'b': [1.5, 'ü'], 'a': None}))"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": s}
        )
        for s in ("1", "2")
    ]
    keys = {run.stdout.strip() for run in runs}
    assert keys == {content_key("change", {"a": None, "b": [1.5, "ü"]})}


def test_a_kind_or_an_ingredient_that_has_no_key_is_refused() -> None:
    with pytest.raises(KeyError):
        content_key("picnic", {})
    with pytest.raises(TypeError, match="not JSON serializable"):
        content_key("pair", {"a": {1, 2}})
