"""Metrics, params and plots that no stage makes, as DVCLive without a pipeline writes them."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.locked import locked, row, trained
from support.pipelines import Repository, prepare, repository, train

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

AS_DVCLIVE: dict[str, Any] = {
    "params": ["dvclive/params.yaml"],
    "metrics": ["dvclive/metrics.json"],
    "plots": [{"dvclive/plots/metrics": {"x": "step"}}, "dvclive/plots/images"],
}


def live(project: Repository, rate: int, **files: str) -> None:
    """Write what DVCLive writes."""
    project.write(
        {
            "dvclive/params.yaml": f"rate: {rate}\n",
            "dvclive/metrics.json": json.dumps({"loss": 1 / rate, "step": 2}),
            "dvclive/plots/metrics/loss.tsv": f"step\tloss\n0\t9\n2\t{1 / rate}\n",
            "dvclive/plots/images/seen.png": "no picture",
            **files,
        }
    )


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository without any stage: two committed runs and an experiment."""
    made = repository(tmp_path_factory.mktemp("notebook") / "project", {})
    made.write({"dvc.yaml": json.dumps(AS_DVCLIVE)})
    live(made, 1)
    made.commit("First")
    made.write({"README.md": "Nothing of it has changed\n"})
    made.commit("A README")
    live(made, 2)
    made.commit("Second")
    head = made.git("rev-parse", "HEAD")
    live(made, 4)
    made.commit("Experiment")
    made.git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/wise-wolf", "HEAD")
    made.git("reset", "-q", "--hard", head)
    return made


def test_rows(notebook: Repository, tmp_path: Path) -> None:
    """Each distinct content is one row, under the oldest commit or the experiment that has it."""
    project = notebook.copy(tmp_path / "project")
    said = project.record("--all")
    assert (said.error, said.out.partition("\n")[0]) == ("", "project: 3 rows added")
    first, second, third = sorted(project.rows(), key=lambda row: row.data.params["rate"])
    assert first.data.params == {"rate": "1"}
    assert first.data.metrics == {"loss": 1.0, "step": 2}
    assert first.data.tags["mlflow.source.git.commit"] == project.git("rev-parse", "HEAD~2")
    curve = project.client.get_metric_history(first.info.run_id, "loss")
    assert [(point.step, point.value) for point in curve] == [(0, 9), (2, 1)]
    assert "dvclive/plots/images/seen.png" in project.artifacts(first)
    assert second.data.tags["git.names"] == "main"
    assert third.data.tags["dvc.exp_name"] == "wise-wolf"
    assert project.record("--all").out.startswith("nothing to do")
    assert project.record().out.startswith("nothing to do: MLflow has this result")


def test_checkout(notebook: Repository, tmp_path: Path) -> None:
    """What nobody has committed is a row with a tree of its own, and a model that DVC tracks."""
    project = notebook.copy(tmp_path / "project")
    project.write({"model.bin": "weights\n"})
    project.dvc("add", "-q", "model.bin")
    top = {**AS_DVCLIVE, "artifacts": {"mine": {"path": "model.bin", "type": "model"}}}
    project.write({"dvc.yaml": json.dumps(top)})
    project.commit("A model")
    live(project, 8)
    project.record()
    (row,) = project.rows()
    assert row.data.params == {"rate": "8"}
    assert "md5.model.bin" in row.data.tags
    live(project, 16)
    said = project.tool("restore", row.info.run_id)
    assert (said.status, said.error) == (0, "")
    (folder,) = (project.path / "restored").glob("*/dvclive")
    assert (folder / "params.yaml").read_text() == "rate: 8\n"
    assert json.loads((folder / "metrics.json").read_text())["loss"] == 1 / 8
    assert (folder.parent / "model.bin").read_text() == "weights\n"


def test_beside_stages(tmp_path: Path) -> None:
    """What a stage writes but does not declare is in its row, which restores its outputs, too."""
    stage = {
        "cmd": "echo model > model.pkl; mkdir -p live; echo '{\"acc\": 0.9}' > live/metrics.json",
        "deps": ["raw.txt"],
        "params": ["rate"],
        "outs": ["model.pkl"],
    }
    metrics = ["live/metrics.json", "no.json"]
    project = repository(tmp_path / "project", {"train": stage}, metrics=metrics)
    project.dvc("repro", "-q")
    project.commit("Results")
    for words in (["--all"], []):
        said = project.record(*words)
        assert said.error == "dvc-mlflow: metrics: 'no.json' is not there, and no stage makes it\n"
    (row,) = project.rows()
    assert (row.data.params, row.data.metrics) == ({"rate": "1"}, {"acc": 0.9})
    said = project.tool("restore", row.info.run_id)
    assert (said.status, said.error) == (0, ""), said
    (folder,) = (path for path in (project.path / "restored").iterdir() if (path / ".git").exists())
    assert (folder / "model.pkl").read_text() == "model\n"


def test_dvclive_2(tmp_path: Path) -> None:
    """What DVCLive declares in its own dvc.yaml is in the row of the stage that makes its metrics.

    A param of both is there once, by its own name, and the description has the stage's command.
    """
    stage = {
        "cmd": "python train.py",
        "params": ["rate"],
        "metrics": [{"dvclive/metrics.json": {"cache": False}}],
    }
    of_its_own = {"params": ["own.yaml"], "metrics": ["metrics.json"], "plots": [{"plots": {}}]}
    project = locked(
        tmp_path / "project",
        {"train": stage},
        {"rate": 1},
        {
            "dvclive/dvc.yaml": json.dumps(of_its_own),
            "dvclive/own.yaml": "rate: 1\nunits: 2\n",
            "dvclive/metrics.json": '{"loss": 3}',
            "dvclive/plots/loss.tsv": "step \t loss\n0\t9\n1\t3\n",
        },
    )
    found = row(project)
    assert {*found.digests} == {"train", "dvclive/dvc.yaml"}
    assert found.params == {"rate": "1", "units": "2"}
    assert (found.metrics["train/loss"], found.curves["loss"]) == (3, [(0, 9), (1, 3)])
    assert found.tags["dvc.stage"] == "train"


def test_stages_without_result(tmp_path: Path) -> None:
    """What no stage makes has a row of its own while the last stages have no result."""
    files = {"live/metrics.json": '{"acc": 0.9}', "data.txt": "1\n"}
    stages = {"prepare": prepare(), "train": train()}
    project = locked(
        tmp_path / "project", stages, files=files, only=["prepare"], metrics=["live/metrics.json"]
    )
    found = row(project)
    assert [*found.digests] == ["dvc.yaml"]
    assert (found.metrics, "md5.live/metrics.json" in found.tags) == ({"acc": 0.9}, True)


def test_restored_without_lock(tmp_path: Path) -> None:
    """Such a row is restored, too, if there is no dvc.lock at all."""
    metrics = ["live/metrics.json"]
    project = repository(tmp_path / "project", {"train": train("raw.txt")}, metrics=metrics)
    project.write({"live/metrics.json": '{"acc": 0.9}'})
    project.commit("A script alone")
    project.record("--all")
    (row,) = project.rows()
    said = project.tool("restore", row.info.run_id)
    assert (said.status, said.error) == (0, ""), said


def test_names_of_params(tmp_path: Path) -> None:
    """A file of params beside the stages changes no name of theirs, and its own are distinct."""
    files = {"live/metrics.json": '{"acc": 0.9}', "live/params.yaml": "rate: 5\n"}
    stages = {"train": {**train("raw.txt"), "params": ["rate"]}}
    project = locked(tmp_path / "project", stages, files={**files, **trained()})
    top = {"metrics": ["live/metrics.json"], "params": ["live/params.yaml"]}
    project.write({"dvc.yaml": json.dumps({"stages": stages, **top})})
    assert row(project).params == {"rate": "1", "dvc.yaml.rate": "5"}
