"""A configuration means what it says, or every mistake in it is told at once."""

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from cdpipe.config.load import load_config
from cdpipe.config.presets import PRESETS
from cdpipe.config.schema import Config
from cdpipe.errors import ConfigError
from cdpipe.models.networks import required_bands
from cdpipe.training.plan import architecture_of
from cdpipe.workspace.location import here

LEAST = """\
name: north
catalog: pairs.csv
workspace: ./work
sensors:
  s2: {bands: {red: 3, green: 2, blue: 1}}
"""


def load(folder: Path, text: str, *overrides: str) -> Config:
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    return load_config(folder / "config.yaml", overrides)


def refusal(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, *overrides)
    return str(caught.value)


def test_the_least_configuration_has_the_documented_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, LEAST)
    assert config.align.block == 2048
    assert config.align.resampling == "bilinear"
    assert (config.label.changed, config.label.unchanged, config.label.ignore) == ((1,), (0,), ())
    assert (config.train.patch, config.train.global_batch, config.train.epochs) == (256, 8, 150)
    assert list(config.train.models) == ["unetplusplus", "siamese_seresnext50"]
    assert (config.predict.overlap, config.predict.tta, config.predict.threshold) == (0.25, "d4", "auto")
    assert config.input.drivers == ("GTiff",)
    assert not config.input.sidecars


def test_the_designs_example_is_valid(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """\
name: north-2025
catalog: pairs.csv
workspace: ./work
sensors:
  kanopus: {bands: {red: 1, green: 2, blue: 3, nir: 4}, nodata: 0}
align: {resampling: bilinear, min_overlap: 0.1}
label: {changed: [1, 255], ignore: []}
normalisation: {statistics: common}
train:
  models: {unetplusplus: {encoder: resnext50_32x4d}, siamese_seresnext50: {init_from: models/xview2}}
  patch: 256
  global_batch: 8                # result-bearing, whatever the number of workers
  epochs: 150
predict: {overlap: 0.25, tta: d4, precision: auto, threshold: auto}
resources: {workers: auto, gpus: auto}
""",
    )
    assert config.train.models["siamese_seresnext50"].init_from == here(tmp_path / "models/xview2")
    assert config.sensors["kanopus"].nodata == 0


def test_paths_are_relative_to_the_files_folder(tmp_path: Path) -> None:
    text = LEAST.replace("./work", "/data/work") + "predict: {models: [../m, /abs/n]}\n"
    config = load(tmp_path, text)
    assert config.catalog == here(tmp_path / "pairs.csv")
    assert config.workspace == here(Path("/data/work"))
    assert config.predict.models == (here(tmp_path.parent / "m"), here(Path("/abs/n")))


@pytest.mark.parametrize("path", ["https://host/x", "s3a://bucket/x", "file:///x"])
def test_addresses_are_refused(tmp_path: Path, path: str) -> None:
    assert "addresses are not supported" in refusal(tmp_path, LEAST.replace("./work", path))


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = refusal(
        tmp_path,
        """\
name: bad name
catalog: pairs.csv
sensors: {s2: {bands: {red: 0}, nodat: 3, scale: 0}}
align: {resamplin: bilinear, block: 1000}
label: {changed: [1, 0]}
train: {patch: 100, learning_rate: fast}
predict: {overlap: 1, threshold: often, tta: d8}
""",
    )
    for expected in (
        "name: got 'bad name'",
        "workspace: missing; this key is required",
        "sensors.s2.bands.red: got 0",
        "sensors.s2.nodat: unknown key; did you mean nodata?",
        "align.resamplin: unknown key; did you mean resampling?",
        "align.block: got 1000",
        "a value may stand in one of changed, unchanged, ignore only",
        "train.patch: got 100",
        "train.learning_rate: got 'fast'",
        "predict.overlap: got 1",
        "predict.threshold",
        "predict.tta: got 'd8'",
    ):
        assert expected in text
    assert text.startswith(f"{tmp_path / 'config.yaml'}: ")


@pytest.mark.parametrize("where", ["sensors: {s2: {bands: {red: 1}, colour: 1}}", "train: {models: {a: {colour: 1}}}"])
def test_unknown_keys_in_named_sections_name_the_known_ones(tmp_path: Path, where: str) -> None:
    lines = [line for line in LEAST.splitlines() if "s2" not in line and "sensors" not in line]
    if "sensors" not in where:
        lines.append("sensors: {s2: {bands: {red: 1}}}")
    assert "colour: unknown key; known here: " in refusal(tmp_path, "\n".join([*lines, where]))


@pytest.mark.parametrize("text", ["1e-4", "0.0001", "1.0e-4", "1E-04"])
def test_numbers_are_numbers_however_they_are_written(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, f"{LEAST}train: {{learning_rate: {text}}}\n").train.learning_rate == 1e-4
    assert load(tmp_path, LEAST, f"train.learning_rate={text}").train.learning_rate == 1e-4


def test_a_key_written_twice_is_a_mistake(tmp_path: Path) -> None:
    assert "key written twice in the mapping that starts in line 1: name" in refusal(tmp_path, f"{LEAST}name: south\n")
    assert "line 6: patch" in refusal(tmp_path, f"{LEAST}train: {{patch: 256, patch: 512}}\n")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"name: [", "not valid YAML"),
        (b"- a\n- b\n", "expected a mapping of keys"),
        (b"", "expected a mapping of keys"),
        (b"\xff\xfe", "expected a readable YAML file in UTF-8"),
        (b"name: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_what_is_no_mapping_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        load_config(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match="expected a readable YAML file"):
        load_config(tmp_path / "missing.yaml")


def test_overrides_win_over_the_file_and_later_over_earlier(tmp_path: Path) -> None:
    text = f"{LEAST}predict: {{overlap: 0.5, threshold: 0.3}}\n"
    config = load(tmp_path, text, "predict.threshold=0.4", "label.changed=[1, 255]", "predict.threshold=0.6")
    assert (config.predict.threshold, config.predict.overlap) == (0.6, 0.5)
    assert config.label.changed == (1, 255)
    assert load(tmp_path, text, "predict.threshold=auto").predict.threshold == "auto"


@pytest.mark.parametrize("override", ["threshold", "=3", "predict.threshold=[", "predict.treshold=0.4"])
def test_mistaken_overrides_are_told(tmp_path: Path, override: str) -> None:
    assert refusal(tmp_path, LEAST, override)


def test_an_override_may_add_a_model(tmp_path: Path) -> None:
    text = f"{LEAST}train: {{models: {{unetplusplus: {{}}}}}}\n"
    config = load(tmp_path, text, "train.models.b.architecture=c")
    assert list(config.train.models) == ["unetplusplus", "b"]


def test_the_original_preset_gives_way_to_the_users_own_keys(tmp_path: Path) -> None:
    config = load(tmp_path, f"{LEAST}preset: original\ntrain: {{global_batch: 16}}\n", "predict.threshold=0.5")
    assert (config.normalisation.statistics, config.normalisation.bands) == ("per_date", "together")
    assert (config.train.global_batch, config.train.patience) == (16, 7)
    assert (config.predict.overlap, config.predict.threshold) == (0.0, 0.5)
    assert load(tmp_path, LEAST, "preset=original").predict.threshold == 0.4
    assert "preset: got 'newest'" in refusal(tmp_path, f"{LEAST}preset: newest\n")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_recipe_whose_models_can_be_built(preset: str, tmp_path: Path) -> None:
    config = load(tmp_path, f"{LEAST}preset: {preset}\n")
    assert (config.train.patch, config.train.global_batch, config.train.samples_per_pair) == (256, 5, 100)
    if preset != "original":
        for name, model in config.train.models.items():
            architecture = architecture_of(name, model)
            assert required_bands(architecture, model.options) == ("red", "green", "blue")
            given = model.encoder_weights
            assert (given is not None and given.name == "imagenet") == (architecture == "unetplusplus")
            assert bool(model.init_from) == architecture.startswith("siamese_")


def test_a_configuration_cannot_be_changed_and_travels(tmp_path: Path) -> None:
    config = load(tmp_path, LEAST)
    with pytest.raises(ValidationError):
        config.name = "south"
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 (our own)


@pytest.mark.parametrize("value", [".nan", ".inf"])
def test_numbers_are_finite(tmp_path: Path, value: str) -> None:
    assert "train.learning_rate" in refusal(tmp_path, LEAST, f"train.learning_rate={value}")
