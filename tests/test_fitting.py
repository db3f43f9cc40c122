"""Temperatures, weights and thresholds: the best of what was searched, and the truth where it is known."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from stored import bright_squares, store_pair, store_probability

from cdpipe.config.schema import Aim, Config, Predict
from cdpipe.geo.grid import Window
from cdpipe.metrics.counts import ScoreHistogram, count_scores, score_histogram
from cdpipe.prediction.ensemble import combine, ensemble_logits, ensemble_scores, plan_ensemble, sample_members
from cdpipe.prediction.temperature import fit_temperature, fit_weights, logit_histogram, soften, threshold_for
from cdpipe.store.pair import LabelledPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]


def overconfident(temperature: float, size: int = 200_000) -> tuple[Floats, Labels]:
    """Probabilities whose logits are too large by a factor, and labels."""
    random = np.random.default_rng(2)
    logit = random.normal(-1, 1.5, size)
    label = (random.random(size) < 1 / (1 + np.exp(-logit))).astype(np.uint8)
    return (1 / (1 + np.exp(-logit * temperature))).astype(np.float32), label


def log_loss(probability: Floats, label: Labels) -> float:
    true = np.clip(np.where(label == 1, probability, 1 - probability).astype(np.float64), 1e-7, 1)
    return float(-np.log(true).mean())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_temperature_undoes_confidence(temperature: float) -> None:
    probability, label = overconfident(temperature)
    fitted = fit_temperature(logit_histogram(probability, label))
    assert fitted == pytest.approx(temperature, rel=0.03)
    loss = log_loss(soften(probability, fitted), label)
    assert all(
        loss <= log_loss(soften(probability, other), label) + 1e-5 for other in (fitted * 0.9, fitted * 1.1, 1.0)
    )


def test_softening_keeps_order_and_what_is_not_observed() -> None:
    probability = np.array([np.nan, 0, 1e-30, 0.2, 0.5, 0.9, 1], np.float32)
    assert soften(probability, 1.0) is probability
    soft = soften(probability, 3.0)
    assert np.isnan(soft[0])
    assert (soft[1], soft[4], soft[6]) == (0, 0.5, 1)
    assert (np.diff(soft[1:]) > 0).all()
    assert soft.dtype == np.float32


def test_extreme_and_missing_evidence_gives_bounded_temperatures() -> None:
    sure = np.array([0.9, 0.1], np.float32)
    assert fit_temperature(logit_histogram(sure, np.array([1, 0], np.uint8))) == pytest.approx(0.05)
    assert fit_temperature(logit_histogram(sure, np.array([0, 1], np.uint8))) == pytest.approx(20)
    assert fit_temperature(logit_histogram(sure, np.array([255, 255], np.uint8))) == 1


def test_weights_have_the_least_log_loss() -> None:
    random = np.random.default_rng(4)
    truth = random.beta(1, 3, 50_000)
    label = (random.random(50_000) < truth).astype(np.uint8)
    noise = random.beta(2, 5, 50_000)
    good = np.clip(truth + random.normal(0, 0.1, 50_000), 0.01, 0.99)
    models = np.stack([good, noise], 1).astype(np.float32)
    shares = fit_weights(models, label)
    assert sum(shares) == pytest.approx(1)
    losses = {
        share: log_loss(models @ np.array([share, 1 - share], np.float32), label) for share in np.arange(0, 1.01, 0.02)
    }
    assert shares[0] == pytest.approx(min(losses, key=losses.__getitem__), abs=0.03)
    assert shares[0] > 0.7
    models[:100], label[100:200] = np.nan, 255
    assert np.isfinite(fit_weights(models, label)).all()
    assert fit_weights(models[:50], label[:50]) == [0.5, 0.5]


@given(st.integers(0, 2**32), st.floats(0, 1), st.sampled_from(["precision", "recall"]))
def test_a_threshold_reaches_its_aim_at_the_least_cost(seed: int, wanted: float, figure: str) -> None:
    random = np.random.default_rng(seed)
    label = (random.random(60) < 0.4).astype(np.uint8)
    score = (0.4 * label + 0.6 * random.random(60)).astype(np.float32)
    histogram = score_histogram(score, label, bins=50)
    offers = [count_scores(score, label, threshold) for threshold in histogram.thresholds]
    other = {"precision": "recall", "recall": "precision"}[figure]
    good = [getattr(counts, other) for counts in offers if getattr(counts, figure) >= wanted]
    if not good:
        with pytest.raises(ValueError, match="reached by no threshold; the most is"):
            threshold_for(histogram, figure, wanted)
        return
    chosen = count_scores(score, label, threshold_for(histogram, figure, wanted))
    assert getattr(chosen, figure) >= wanted
    assert getattr(chosen, other) == max(good)


class Case:
    """Two models' probabilities of a pair of several blocks."""

    def __init__(self, folder: Path, block: int) -> None:
        self.workspace = Workspace(here(folder))
        dates, self.label = bright_squares((300, 600), 3, squares=20)
        random = np.random.default_rng(0)
        self.item: LabelledPair = store_pair(self.workspace, "p", dates, self.label, block=block)
        self.models: dict[str, Floats] = {}
        for name in ("one", "two"):
            values = (0.5 * (self.label == 1) + 0.5 * random.random(self.label.shape)).astype(np.float32)
            values[:30] = np.nan
            self.models[name] = values
            store_probability(self.workspace, self.item.pair, name, values)


@pytest.fixture(scope="module", params=[256, 512])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("fitting"), request.param)


def test_an_ensemble_averages_softened_probabilities(case: Case) -> None:
    ensemble = plan_ensemble([("one", 3.0), ("two", 1.0)], 0.4, temperatures=[2.0, 1.0])
    found = combine(case.workspace, case.item.pair, ensemble, Window(20, 200, 100, 300))
    soft = soften(case.models["one"], 2.0) * np.float32(0.75) + case.models["two"] * np.float32(0.25)
    np.testing.assert_array_equal(found, soft[20:120, 200:500])


def test_temperatures_of_one_change_no_key() -> None:
    members = [("one", 3.0), ("two", 1.0)]
    plain = plan_ensemble(members, 0.4)
    assert plan_ensemble(members, 0.4, temperatures=[1.0, 1.0]) == plain
    assert plan_ensemble(members, 0.4, temperatures=[1.0, 1.5]).key != plain.key


def test_histograms_and_samples_are_those_of_the_whole(case: Case) -> None:
    alone = [plan_ensemble([(name, 1.0)], 0.0) for name in case.models]
    scores: ScoreHistogram = ensemble_scores(case.workspace, case.item, alone[0])
    assert scores == score_histogram(case.models["one"], case.label)
    assert ensemble_logits(case.workspace, case.item, alone[0]) == logit_histogram(case.models["one"], case.label)
    for step in (1, 3, 7):
        probabilities, labels = sample_members(case.workspace, case.item, alone, step)
        np.testing.assert_array_equal(labels, case.label[::step, ::step].ravel())
        for number, values in enumerate(case.models.values()):
            np.testing.assert_array_equal(probabilities[:, number], values[::step, ::step].ravel())


@pytest.mark.parametrize(
    "options",
    [{"aim": {}}, {"aim": {"precision": 0.8, "recall": 0.8}}, {"ensemble": "vote", "temperature": "auto"}],
)
def test_aims_and_fits_that_mean_nothing_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"one of the two|a vote has thresholds"):
        Predict.model_validate(options)


def test_an_aim_says_what_is_wanted() -> None:
    assert Aim(recall=0.9).wanted == ("recall", 0.9)
    assert Aim(precision=0.0).wanted == ("precision", 0.0)
    assert Config.model_fields["predict"].default.aim == "f1"
