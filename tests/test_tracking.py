"""Trained models reach MLflow once, whole, and nothing is lost where they do not."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from project import Project, call, succeed

from cdpipe.errors import EXIT_DONE
from cdpipe.training.tracking import KEY


def test_a_trained_model_is_logged_once(branch: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    folder = tmp_path / "mlruns"
    for _ in range(2):
        succeed([*branch.arguments("train"), "--set", f"tracking.mlflow={folder}"])
    client = MlflowClient(folder.as_uri())
    experiment = client.get_experiment_by_name("run")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    [card] = branch.workspace.glob("models/*/*/model.json")
    assert run.data.tags[KEY] == card.parent.name
    assert run.data.params["architecture"] == "unetplusplus"
    lines = (card.parent / "history.csv").read_text().splitlines()
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert [metric.step for metric in losses] == [int(line.split(",")[0]) for line in lines[1:]]
    column = lines[0].split(",").index("loss")
    assert [metric.value for metric in losses] == [float(line.split(",")[column]) for line in lines[1:]]
    assert {item.path for item in client.list_artifacts(run.info.run_id, "model")} >= {
        "model/model.safetensors",
        "model/model.json",
    }


def test_a_server_that_does_not_answer_costs_no_model(branch: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    result = call([*branch.arguments("train"), "--set", "tracking.mlflow=http://127.0.0.1:9"])
    assert result.code == EXIT_DONE
    assert "tracking.mlflow: http://127.0.0.1:9" in result.out
    assert "Traceback" not in result.out
