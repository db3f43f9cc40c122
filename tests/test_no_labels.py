"""Two images, or a catalog without labels: which bands are compared, who answers, and what the page says."""

import json
import re
from pathlib import Path
from typing import Any

import html5lib
import pytest
from rasters import make_config
from reports import CHANGE, EVIL, make_job
from test_bands import info_of

from cdpipe.api.answer import say_who_answers, without_labels
from cdpipe.api.status import status
from cdpipe.config.detectors import FINE_M, NAMED, SHIPPED, WITH_COLOURS, WITHOUT_LABELS, named_folder
from cdpipe.errors import InputError
from cdpipe.models.answering import is_finer, who_answers
from cdpipe.pairs.bands import common_bands, named_roles
from cdpipe.report import answer
from cdpipe.report.answer import AnswerJob, trust, write_answer
from cdpipe.runs.run import Remark, Run
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

FIT = {"bands": ["red", "green", "blue"], "threshold": 6.2, "pixels": 25_200, "step": 1}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (("",) * 3, ("",) * 3, {"red": (1, 1), "green": (2, 2), "blue": (3, 3)}),
        (("",) * 5, ("",) * 5, {"red": 1, "green": 2, "blue": 3, "band4": 4, "band5": 5}),
        (("",), ("",), {"band1": 1}),
        (("VV", "VH"), ("VV", "VH"), {"band1": 1, "band2": 2}),
        (("blue", "green", "red", "nir"), ("red", "green", "blue"), {"blue": (1, 3), "green": (2, 2), "red": (3, 1)}),
        (("blue", "green", "red", "nir"), ("",) * 4, {"blue": 1, "green": 2, "red": 3, "nir": 4}),
        (("blue", "green", "red", "x"), ("blue", "green", "red", "y"), {"blue": 1, "green": 2, "red": 3, "band4": 4}),
        (("",) * 3, ("",) * 4, {"red": 1, "green": 2, "blue": 3}),
        (("red", "nir08"), ("red", "nir", "nir08"), {"red": (1, 1), "nir": (2, 3)}),
        (("nir", "nir08"), ("nir", "nir08"), {"nir": 1, "nir08": 2}),
    ],
)
def test_the_bands_that_both_dates_have_are_compared(before: Any, after: Any, expected: dict[str, Any]) -> None:
    first, second, texts = common_bands(info_of(before, "a.tif"), info_of(after, "b.tif"))
    both = {role: place if isinstance(place, tuple) else (place, place) for role, place in expected.items()}
    assert first == {role: one for role, (one, _) in both.items()}
    assert second == {role: other for role, (_, other) in both.items()}
    if before[0] not in ("", "VV"):
        assert texts[0] == f"compared are the bands {', '.join(expected)}"
    else:
        numbers = ", ".join(str(one) for one, _ in both.values())
        shown = "; the first three are shown as red, green and blue" if len(expected) > 2 else ""
        which = f"are bands {numbers}" if len(expected) > 1 else f"is band {numbers}"
        assert texts[0] == f"the files name no bands; compared {which} of both{shown}"


def test_a_band_of_one_date_alone_is_named() -> None:
    _, _, texts = common_bands(info_of(("blue", "green", "red", "nir"), "a.tif"), info_of(("red", "green"), "b.tif"))
    assert texts == [
        "compared are the bands green, red",
        "/data/a.tif: the other date has no band blue, nir: left out",
    ]


def test_dates_that_share_no_band_are_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match=r"no band is called the same at both dates \(nir; red, green\); .*--bands"):
        common_bands(info_of(("nir",), "a.tif"), info_of(("red", "green"), "b.tif"))


def catalog(folder: Path, label: str) -> Path:
    path = folder / "pairs.csv"
    path.write_text(f"pair_id,before,after,label\np,a.tif,b.tif,{label}\n")
    return path


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (("",) * 4, ("",) * 4, set()),  # which may be in any order
        (("blue", "green", "red", "nir"), ("red", "green", "blue"), {"red", "green", "blue"}),
        (("blue", "green", "red", "nir"), ("",) * 4, {"red", "green", "blue", "nir"}),
        (("blue", "green", "red", "nir"), ("",) * 3, set()),
    ],
)
def test_bands_are_known_where_files_name_them(before: Any, after: Any, expected: set[str]) -> None:
    roles = named_roles(info_of(before, "a.tif"), info_of(after, "b.tif"))
    assert roles == expected
    assert who_answers(roles) == (WITH_COLOURS if expected else WITHOUT_LABELS)


@pytest.mark.parametrize(
    ("least", "pixel", "bands", "dtype", "expected"),
    [
        (None, 0.5, 3, "uint8", False),
        (3.0, 0.5, 4, "uint16", True),
        (3.0, 3.0, 3, "uint8", False),
        (3.0, None, 3, "uint8", True),
        (3.0, None, 3, "uint16", False),
        (3.0, None, 4, "uint8", False),
    ],
)
def test_detectors_keep_out_of_fine_pixels(
    least: float | None, pixel: float | None, bands: int, dtype: str, *, expected: bool
) -> None:
    assert is_finer(least, pixel, bands, lambda: dtype) == expected


def test_a_catalog_without_labels_is_answered(tmp_path: Path) -> None:
    catalog(tmp_path, "")
    config = without_labels(make_config(tmp_path))
    assert config.predict.models == tuple(map(named_folder, WITH_COLOURS))
    assert config.predict.detectors_from_m == FINE_M
    assert not config.predict.takes_trained
    own = without_labels(make_config(tmp_path, predict={"detectors_from_m": 0.2}))
    assert own.predict.models == config.predict.models
    assert own.predict.detectors_from_m == 0.2
    radar = make_config(tmp_path, sensors={"s": {"bands": {"vv": 1, "vh": 2}}})
    assert without_labels(radar).predict.models == tuple(map(named_folder, WITHOUT_LABELS))
    told: list[str] = []
    say_who_answers(Run(config, lambda event: told.append(event.text) if isinstance(event, Remark) else None))
    assert len(told) == 1
    assert told[0].startswith("no pair of pairs.csv has a label, so nothing is trained: what looks different")
    assert "made-up scenes, and the detectors mad and cva. That says where to look first" in told[0]
    assert not [stage.stage for stage in status(Run(config)).stages if stage.stage.startswith("train")]


@pytest.mark.parametrize(
    ("label", "predict"), [("m.tif", {}), ("", {"models": ["folder"]}), ("", {"members": ["unetplusplus"]})]
)
def test_labels_and_named_models_leave_a_configuration_as_it_is(
    tmp_path: Path, label: str, predict: dict[str, Any]
) -> None:
    catalog(tmp_path, label)
    config = make_config(tmp_path, predict=predict)
    assert without_labels(config) is config
    told: list[Any] = []
    say_who_answers(Run(config, told.append))
    assert told == []


def test_a_catalog_that_cannot_be_read_is_left_to_the_check(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    assert without_labels(config) is config


def page_of(tmp_path: Path, **changes: Any) -> tuple[str, Any]:
    """The page's text without tags, and its tree; a mistake in its HTML raises."""
    workspace = Workspace(here(tmp_path))
    job = make_job(workspace, "p", 0)
    assert job.objects is not None
    values: dict[str, Any] = {
        "workspace": workspace,
        "pair": job.pair,
        "change_key": CHANGE,
        "threshold": 0.5,
        "objects": job.objects[0],
        "files": ("a.tif", EVIL),
        "fits": {"mad": FIT},
        "others": (),
        "remarks": ("compared are the bands red, green, blue",),
    }
    path = tmp_path / "report.html"
    write_answer(here(path), AnswerJob(**values | changes))
    tree = html5lib.HTMLParser(strict=True).parse(path.read_bytes(), transport_encoding="utf-8")
    write_answer(here(tmp_path / "again.html"), AnswerJob(**values | changes))
    assert here(tmp_path / "again.html").sha256() == here(path).sha256()
    assert {each.name for each in tmp_path.iterdir() if "html" in each.name or "files" in each.name} == {
        "report.html",
        "again.html",
    }
    return " ".join("".join(tree.itertext()).split()), tree


def test_the_page_says_what_was_found_how_far_to_trust_it_and_what_to_do(tmp_path: Path) -> None:
    text, tree = page_of(tmp_path)
    for words in (
        "Found by mad, multivariate alteration detection",
        "Nobody labelled anything, so nobody knows how much of this is right",
        "43 of 100 pixels that it marked",
        "So this says where to look first.",
        "What to do next",
        "--set predict.threshold=0.7",
        "mad compared red, green, blue and looked at 25,200 pixels to find out",
        "compared are the bands red, green, blue",
    ):
        assert words in text
    assert len(list(tree.iter("{http://www.w3.org/1999/xhtml}h1"))) == 1
    images = list(tree.iter("{http://www.w3.org/1999/xhtml}img"))
    assert {image.get("data-layer") for image in images} == {None, "before", "after", "change", "probability"}
    assert {image.get("src").partition(",")[0] for image in images} == {
        "data:image/jpeg;base64",
        "data:image/webp;base64",
    }
    (script,) = tree.iter("{http://www.w3.org/1999/xhtml}script")  # and none that other people's names would have put
    view = json.loads(script.text.rpartition("const VIEW = ")[2].strip().rstrip(";"))
    assert (view["width"], view["height"], view["levels"]) == (180, 140, [])
    assert view["changes"]
    assert re.search(r"Changed ?[\d.,]+ (m²|ha)", text)


def test_a_scene_in_which_nothing_changed_is_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "LITTLE", 1.0)
    text, _ = page_of(tmp_path, objects=None, fits={}, others=("net",))
    assert "Nothing stands out" in text
    assert "Found by net" in text
    assert "What it can be trusted for" not in text


def test_a_scene_unlike_what_a_model_learned_from_is_not_to_be_believed(tmp_path: Path) -> None:
    text, _ = page_of(tmp_path, fits={}, others=("net",), doubts=("its pixels are 50 m wide",))
    start = text.index("Not to be believed as it is. No label says how right this is here.")
    assert "its pixels are 50 m wide" in text[start : start + 250]
    assert "--model irmad" not in text


def test_the_page_names_the_model_that_comes_along_beside_detectors(tmp_path: Path) -> None:
    text, _ = page_of(tmp_path, fits={"mad": FIT, "cva": FIT}, others=(SHIPPED,))
    assert "Found by cdpipe, a network that comes with cdpipe and learned from made-up scenes alone; and mad, " in text
    assert "53 of 100 pixels that they marked" in text
    assert "Nobody labelled anything" in text
    text, _ = page_of(tmp_path, fits={}, others=(SHIPPED,))
    assert "38 of 100 pixels that it marked" in text
    assert "In images of half a metre, where roofs" not in text
    assert "--model irmad" in text


def test_all_that_answers_without_labels_has_its_words() -> None:
    assert {name for names in answer.MEASURED for name in names} == set(answer.ANSWERING) == set(NAMED)
    assert {WITH_COLOURS, WITHOUT_LABELS, (SHIPPED,)} <= set(answer.MEASURED)
    assert "42 of 100 pixels that they marked" in " ".join(trust(["mad", "cva"]))
    assert "irmad: 33 of 100" in " ".join(trust(["mad", "irmad"]))
