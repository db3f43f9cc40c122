"""Every way to run a network agrees with torch in float32, and an engine is the same whoever builds it and when."""

import dataclasses
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from project import Project, array, call, contents, make_project, succeed, untrained_model
from rasters import make_config
from stored import RGB, bright_squares, store_pair

from cdpipe.config.schema import Predict
from cdpipe.errors import ConfigError, InputError, IntegrityError
from cdpipe.inference import backends
from cdpipe.inference.backends import check_backend, choose_backend
from cdpipe.inference.openvino import SEAL, cache_folder, cached_engine, engine_key
from cdpipe.inference.patches import Execution
from cdpipe.keys import content_key
from cdpipe.models import networks
from cdpipe.models.folder import WEIGHTS, ModelCard, read_card, save_model
from cdpipe.models.networks import build_model, input_kind
from cdpipe.prediction.block import Member, open_forward, probability_key
from cdpipe.prediction.calibration import WINDOWS, Calibration
from cdpipe.prediction.in_memory import predict_array
from cdpipe.runs.manifest import ManifestPair
from cdpipe.runs.members import ModelSource, plan_members
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

pytestmark = pytest.mark.usefixtures("one_thread")

PATCH = 64
NETWORKS: dict[str, dict[str, Any]] = {
    "unetplusplus": {"encoder": "resnet18", "encoder_depth": 3, "decoder_channels": [32, 16, 16]},
    "siamese_resnet18": {"decoder_channels": [8, 8, 8, 8]},
}
# largest and mean difference of a probability from torch's in float32
BOUNDS = {"float32": (1e-5, 1e-6), "bfloat16": (0.02, 1e-3), "int8": (0.15, 2e-2)}
WAYS = [("torch", "float32"), ("torch", "bfloat16"), *(("openvino", precision) for precision in BOUNDS)]
QUICK = [("unetplusplus", "openvino", "float32"), ("unetplusplus", "openvino", "bfloat16")]  # they share an engine
CASES = [
    pytest.param(*case, marks=() if case[1] == "torch" or case in QUICK else pytest.mark.heavy)
    for case in [(name, *way) for name in NETWORKS for way in WAYS]
]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Trained:
    """Model folders by name, what they are calibrated on, and a patch for each that they were not."""

    folders: dict[str, Path]
    calibration: Calibration
    patches: dict[str, Floats]

    def run(self, name: str, execution: Execution, patches: Floats | None = None) -> Floats:
        """What a model makes of patches, by default of its own."""
        chosen = self.calibration if execution.precision == "int8" else None
        forward = open_forward(here(self.folders[name]), read_card(here(self.folders[name])), execution, chosen)
        return forward(self.patches[name] if patches is None else patches)


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    workspace = Workspace(here(tmp_path_factory.mktemp("calibration")))
    pairs = [store_pair(workspace, name, *bright_squares((150, 200), seed)) for seed, name in enumerate("ab")]
    return Calibration(workspace, tuple(pairs))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, calibration: Calibration) -> Trained:
    """Networks that were trained for a moment, so that their statistics and their answers are those of real ones."""
    root = tmp_path_factory.mktemp("models")
    other = Calibration(calibration.workspace, (store_pair(calibration.workspace, "o", *bright_squares((90, 90), 9)),))
    patches = {}
    for name, arguments in NETWORKS.items():
        torch.manual_seed(3)
        network = build_model(name, **arguments)
        card = ModelCard(name, name, arguments, RGB, "common", False, PATCH, "")
        batch = torch.cat([torch.from_numpy(x) for x in calibration.windows(card.recipe, PATCH)])[:4]
        wanted = (batch.abs().mean(1, keepdim=True) > batch.abs().mean()).float()
        optimiser = torch.optim.Adam(network.parameters(), 1e-3)
        for _ in range(6):
            optimiser.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(network.train()(batch), wanted)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        save_model(here(root / name), card, network.state_dict())
        patches[name] = next(other.windows(card.recipe, PATCH))
    return Trained({name: root / name for name in NETWORKS}, calibration, patches)


def way(backend: str, precision: str, tta: str = "d4") -> Execution:
    return Execution(tta, precision, "cpu", 1, backend)


@pytest.mark.parametrize("tta", ["none", "d4"])
@pytest.mark.parametrize(("name", "backend", "precision"), CASES)
def test_all_agree_with_torch_in_float32_and_with_themselves(
    trained: Trained, name: str, backend: str, precision: str, tta: str
) -> None:
    exact = trained.run(name, way("torch", "float32", tta))
    found = trained.run(name, way(backend, precision, tta))
    assert found.shape == exact.shape == (1, PATCH, PATCH)
    assert found.dtype == np.float32
    assert np.ptp(exact) > 0.1, "a network that answers the same everywhere tells nothing"
    difference = np.abs(found - exact)
    largest, mean = BOUNDS[precision]
    assert difference.max() <= largest
    assert difference.mean() <= mean * (1 if tta == "d4" else 2)  # the mean of eight views strays less
    assert (difference.max() > 0) == ((backend, precision) != ("torch", "float32"))
    assert trained.run(name, way(backend, precision, tta)).tobytes() == found.tobytes()


def test_patches_of_a_batch_do_not_bear_on_each_other(trained: Trained) -> None:
    one = trained.patches["unetplusplus"]
    both, *each = (
        trained.run("unetplusplus", way("openvino", "float32"), patches)
        for patches in (np.concatenate([one, -one]), one, -one)
    )
    assert np.array_equal(both, np.concatenate(each))


@pytest.mark.parametrize(("name", "backend", "precision"), CASES)
def test_threads_that_share_a_network_each_get_their_own_answers(
    trained: Trained, name: str, backend: str, precision: str
) -> None:
    folder, run = here(trained.folders[name]), way(backend, precision, "none")
    calibration = trained.calibration if precision == "int8" else None
    forward = open_forward(folder, read_card(folder), run, calibration)
    rng = np.random.default_rng(0)
    patches = [trained.patches[name] * np.float32(rng.uniform(0.5, 1.5)) for _ in range(24)]
    alone = [forward(each).tobytes() for each in patches]
    assert len(set(alone)) == len(alone)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda each: forward(each).tobytes(), patches)) == alone


def test_weights_that_are_no_numbers_or_not_the_cards_are_refused(trained: Trained, tmp_path: Path) -> None:
    folder = shutil.copytree(trained.folders["unetplusplus"], tmp_path / "model")
    forward = open_forward(here(folder), read_card(here(folder)), way("openvino", "float32"))
    assert forward is not None
    with (folder / WEIGHTS).open("r+b") as stream:
        stream.seek(-4, 2)
        stream.write(b"\xff\xff\xff\x7f")
    with pytest.raises(IntegrityError, match=r"is not the file that model\.json describes"):
        open_forward(here(folder), read_card(here(folder)), way("openvino", "float32"))  # although its engine is kept
    card = dataclasses.replace(read_card(here(folder)), weights_sha256=here(folder / WEIGHTS).sha256())
    with pytest.raises(InputError, match="holds NaN or infinity"):
        open_forward(here(folder), card, way("openvino", "float32"))


@pytest.mark.heavy
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_an_engine_built_again_gives_the_same_bits(
    trained: Trained, precision: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = []
    for name in ("one", "two"):
        monkeypatch.setenv("CDPIPE_CACHE", str(tmp_path / name))
        answer = trained.run("unetplusplus", way("openvino", precision))
        found.append((answer.tobytes(), contents(tmp_path / name, "*/engine.bin")))
    assert found[0] == found[1]
    assert len(found[0][1]) == 1


KEPT = {"graph": b"some", "weights": b"bytes"}


def test_an_engine_is_built_once_and_again_when_it_is_damaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CDPIPE_CACHE", str(tmp_path / "deep" / "cache"))
    built = []

    def build() -> dict[str, bytes]:
        built.append(1)
        return KEPT

    def damage(name: str, data: bytes | None) -> None:
        path = cache_folder() / "key" / name
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)

    assert cached_engine("key", build) == cached_engine("key", build) == KEPT
    assert len(built) == 1
    seal = (cache_folder() / "key" / SEAL).read_bytes()
    damages = [("graph", b"else"), ("weights", None), ("weights", b""), (SEAL, b"{}"), (SEAL, seal[:40]), (SEAL, None)]
    for number, (name, data) in enumerate(damages, start=2):
        damage(name, data)
        assert cached_engine("key", build) == KEPT
        assert len(built) == number
    (cache_folder() / "other").mkdir()
    for path in (cache_folder() / "key").iterdir():
        shutil.copy(path, cache_folder() / "other")
    assert cached_engine("other", lambda: {"graph": b"its own"}) == {"graph": b"its own"}  # not what was put there
    (cache_folder() / "key" / f"graph.{2**22}.partial").write_bytes(b"of a builder that was killed")
    damage("graph", None)
    assert cached_engine("key", build) == KEPT
    assert sorted(path.name for path in (cache_folder() / "key").iterdir()) == sorted([*KEPT, SEAL])


def test_where_nothing_can_be_written_an_engine_is_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("CDPIPE_CACHE", str(tmp_path / "file" / "cache"))
    assert cached_engine("key", lambda: KEPT) == KEPT
    monkeypatch.delenv("CDPIPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "cdpipe"


BUILDER = """
import sys, time
from pathlib import Path
from cdpipe.inference.openvino import cached_engine

def build():
    (Path(sys.argv[1]) / str(time.time_ns())).touch()
    time.sleep(0.3)
    return {"graph": b"g" * 1000}

sys.exit(cached_engine("key", build) != {"graph": b"g" * 1000})
"""


def test_of_several_that_want_an_engine_one_builds_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CDPIPE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "built").mkdir()
    command = [sys.executable, "-c", BUILDER, str(tmp_path / "built")]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(list((tmp_path / "built").iterdir())) == 1


def test_keys_tell_results_apart_and_torchs_are_what_they_were(trained: Trained) -> None:
    calibration = trained.calibration
    card = read_card(here(trained.folders["unetplusplus"]))

    def key(execution: Execution, used: Calibration | None = None) -> str:
        return probability_key("pair", Member(card, here(Path("x")), "x", None, 1.0, 0.25, execution, used))

    parts = {"pair": "pair", "model": card.key, "stride": 48, "tta": "d4", "precision": "float32", "batch": 1}
    assert key(way("torch", "float32")) == content_key("probability", {**parts, "backend": "torch-cpu"})
    large = Member(dataclasses.replace(card, patch=256), here(Path("x")), "x", None, 1.0, 0.25, way("torch", "float32"))
    parts |= {"model": large.card.key, "stride": 192, "backend": "torch-cpu"}
    assert probability_key("pair", large) == content_key("probability", {**parts, "views_at_once": 2})
    fewer = Calibration(calibration.workspace, calibration.pairs[:1])
    elsewhere = Calibration(Workspace(here(Path("elsewhere"))), calibration.pairs[::-1])
    keys = [key(way(*each)) for each in WAYS if each[1] != "int8"]
    keys += [key(way("openvino", "int8"), each) for each in (calibration, fewer)]
    assert len(set(keys)) == len(keys)
    assert key(way("openvino", "int8"), elsewhere) == keys[-2]  # the same pairs, whatever their order and place
    engines = [engine_key(card, each) for each in (None, calibration, fewer)]
    engines.append(engine_key(dataclasses.replace(card, weights_sha256="0"), None))
    assert len(set(engines)) == len(engines)
    assert engine_key(card, elsewhere) == engines[1]


def test_calibration_sees_change_and_the_same_windows_every_time(trained: Trained) -> None:
    calibration = trained.calibration
    recipe = read_card(here(trained.folders["siamese_resnet18"])).recipe
    one, other = (
        np.stack(list(each.windows(recipe, PATCH)))
        for each in (calibration, dataclasses.replace(calibration, pairs=calibration.pairs[::-1]))
    )
    assert one.shape == (WINDOWS, 1, 6, PATCH, PATCH)
    assert np.array_equal(one, other)
    brighter = (one[:, 0, 3:] - one[:, 0, :3]).mean(1).max((-2, -1))
    assert (brighter > 1).sum() >= WINDOWS / 2
    blank = store_pair(calibration.workspace, "blank", bright_squares((70, 70), 1)[0], np.full((70, 70), 255, np.uint8))
    with pytest.raises(InputError, match="none of which has a labelled pixel"):
        list(Calibration(calibration.workspace, (blank,)).windows(recipe, PATCH))


def test_int8_is_of_openvino_alone() -> None:
    with pytest.raises(ValueError, match="precision: int8 needs backend: openvino, got backend: torch"):
        Predict(backend="torch", precision="int8")
    assert Predict(precision="int8").backend == "auto"
    assert choose_backend("auto", "int8", "cpu", "dpt") == "openvino"  # which says what it lacks


@pytest.mark.parametrize(
    ("machine", "installed", "device", "network", "chosen"),
    [
        ("x86_64", True, "cpu", "unet", "openvino"),
        ("AMD64", True, "cpu", "unet", "openvino"),
        ("aarch64", True, "cpu", "unet", "torch"),
        ("arm64", True, "cpu", "unet", "torch"),
        ("x86_64", False, "cpu", "unet", "torch"),
        ("x86_64", True, "cuda", "unet", "torch"),
        ("x86_64", True, "cpu", "dpt", "torch"),
    ],
)
def test_what_runs_networks_by_default(
    monkeypatch: pytest.MonkeyPatch, machine: str, installed: bool, device: str, network: str, chosen: str
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(backends, "find_spec", lambda name: name if installed else None)
    assert choose_backend("auto", "float32", device, network) == chosen
    for flags, in_bfloat16 in (({"avx512_bf16"}, chosen), ({"avx2"}, "torch")):  # which emulates it
        monkeypatch.setattr(backends, "processor_flags", lambda flags=flags: flags)
        assert choose_backend("auto", "bfloat16", device, network) == in_bfloat16
    assert choose_backend("torch", "float32", device, network) == "torch"


def test_a_backend_that_cannot_run_is_refused_before_any_work(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = make_config(tmp_path, predict={"backend": "openvino"})
    source = ModelSource(here(trained.folders["unetplusplus"]), "unetplusplus")
    assert plan_members(config, [source], "cpu")[0].execution == way("openvino", "float32")
    with pytest.raises(ConfigError, match="openvino runs on CPUs, and there are GPUs here"):
        check_backend(config.predict, "cuda")
    project = make_project(tmp_path / "project", ["small"], predict={"backend": "openvino", "precision": "int8"})
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == "nncf" else name)
    result = call(project.arguments("pipeline"))
    assert result.code == 2
    assert "precision int8 needs the package(s) nncf, not installed here; install" in " ".join(result.err.split())
    assert not (project.workspace / "store.zarr").exists()


def test_arrays_in_memory_are_predicted_by_any_backend(trained: Trained) -> None:
    dates = bright_squares((70, 90), 4)[0]
    exact = predict_array(*dates, trained.folders["unetplusplus"], tta="none", backend="torch")
    found = predict_array(*dates, trained.folders["unetplusplus"], tta="none", backend="openvino")
    assert 0 < np.abs(found - exact).max() <= 1e-5
    with pytest.raises(ValueError, match="expected precision float32 or bfloat16, got 'int8'"):
        predict_array(*dates, trained.folders["unetplusplus"], backend="openvino", precision="int8")


@pytest.mark.heavy
def test_telemetry_is_not_loaded(trained: Trained) -> None:
    code = (
        "import sys; from cdpipe.prediction.in_memory import predict_array; import numpy as np\n"
        f"predict_array(*np.random.rand(2, 3, 64, 64), {str(trained.folders['unetplusplus'])!r}, backend='openvino')\n"
        "assert sys.modules['openvino'] and sys.modules['openvino_telemetry'] is None"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CI"}  # which would turn it off too
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def make_model(folder: Path, name: str, encoder: str = "resnet18") -> ModelCard:
    """A model folder with random weights."""
    torch.manual_seed(1)
    small = {"encoder": encoder} if input_kind(name) == "difference" else {}
    network = build_model(name, **small)
    return save_model(here(folder), ModelCard(name, name, small, RGB, "common", False, 64, ""), network.state_dict())


@pytest.mark.heavy
@pytest.mark.parametrize("name", [name for name in networks.NETWORKS if name not in ("dpt", "pan")])
def test_every_network_becomes_an_engine(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDPIPE_CACHE", str(tmp_path / "cache"))  # gone with the test: these are large
    _check_engine(tmp_path / name, make_model(tmp_path / name, name))


@pytest.mark.parametrize("name", ["unetplusplus", "siamese_unet"])
def test_a_full_size_network_becomes_an_engine(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDPIPE_CACHE", str(tmp_path / "cache"))
    arguments = {"encoder": "plain8", "bands": ["nir", "red"]}
    network = build_model(name, **arguments)
    card = ModelCard(name, name, arguments, ("nir", "red"), "common", False, 64, "", clip=4.0)
    _check_engine(tmp_path / name, save_model(here(tmp_path / name), card, network.state_dict()))


def _check_engine(folder: Path, card: ModelCard) -> None:
    x = np.random.default_rng(1).normal(size=(1, card.recipe.channels, 64, 64)).astype(np.float32)
    exact, found = (open_forward(here(folder), card, way(each, "float32"))(x) for each in ("torch", "openvino"))
    assert np.abs(found - exact).max() <= 1e-4  # random weights make large numbers, such as SNUNet's logits of 100


@pytest.mark.heavy
def test_a_network_that_openvino_cannot_run_is_refused_in_a_line(tmp_path: Path) -> None:
    card = make_model(tmp_path / "model", "dpt", "tu-vit_tiny_patch16_224")
    with pytest.raises(ConfigError, match=r"openvino cannot run dpt \(model .*\); set predict\.backend: torch"):
        open_forward(here(tmp_path / "model"), card, way("openvino", "float32"))


def predicted(project: Project, pair_id: str) -> NDArray[np.float32]:
    pair = next(pair for pair in project.manifest.pairs if pair.pair_id == pair_id)
    return array(project, "probabilities", pair_id, pair.probabilities["third"], "probability")


@pytest.mark.heavy
@pytest.mark.usefixtures("local_ray")
def test_a_run_goes_through_openvino(tmp_path: Path) -> None:
    model = untrained_model(tmp_path, "third")
    project = make_project(tmp_path / "project", ["small"], predict={"models": [str(model)], "threshold": 0.5})
    succeed(project.arguments("ingest"))
    succeed(project.arguments("predict"))
    exact = predicted(project, "small")
    openvino = project.arguments("predict", "--set", "predict.backend=openvino")
    succeed(openvino)
    found = predicted(project, "small")
    assert np.array_equal(np.isnan(found), np.isnan(exact))
    assert 0 < np.nanmax(np.abs(found - exact)) <= 1e-5
    before = contents(project.workspace, "store.zarr/**/*")
    succeed(openvino)
    assert contents(project.workspace, "store.zarr/**/*") == before
    result = call([*openvino, "--set", "predict.precision=int8"])
    assert result.code == 2
    assert "calibrated on labelled pairs of the split train, and the store has none" in " ".join(result.err.split())


@pytest.mark.heavy
@pytest.mark.usefixtures("local_ray")
def test_int8_is_calibrated_on_the_training_pairs_of_a_run(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", ["wide", "val", "test"], resources={"workers": 2, "gpus": 0})
    succeed(project.arguments("pipeline"))
    exact = {
        pair.pair_id: array(project, "probabilities", pair.pair_id, *stored(pair)) for pair in project.manifest.pairs
    }
    int8 = ("--set", "predict.backend=openvino", "--set", "predict.precision=int8")
    succeed(project.arguments("predict", *int8))
    for pair in project.manifest.pairs:
        found = array(project, "probabilities", pair.pair_id, *stored(pair))
        difference = np.abs(found - exact[pair.pair_id])
        assert 0 < np.nanmax(difference) <= 0.1
        assert np.nanmean(difference) <= 1e-2


def stored(pair: ManifestPair) -> tuple[str, str]:
    """Key and name of the array of a pair's only model."""
    return pair.probabilities["unetplusplus"], "probability"
