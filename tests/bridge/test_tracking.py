"""MLflow rows, recorded by real stages in a real store."""

import itertools
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient, artifacts
from mlflow.entities import Run, ViewType
from ruamel.yaml import YAML

from bridge.run.files import md5
from clone import Clone, environment, make_clone
from servers import serving
from vanilla_lstm.task.artifacts import TRAIN_DATA

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # MLflow's client warns in the test process
]

EXPERIMENT = "vanilla-lstm"
MD5_TAGS = {
    "train_data.md5": "data/train.npz",
    "model.md5": "data/model.keras",
    "test_data.md5": "data/test.npz",
}


def client_of(clone: Clone) -> MlflowClient:
    return MlflowClient(f"sqlite:///{clone.path}/mlflow.db")


def rows(clone: Clone, experiment: str = EXPERIMENT) -> list[Run]:
    """Return the rows of a clone's store, newest first."""
    client = client_of(clone)
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id])) if found else []


def text(clone: Clone, run: Run, name: str) -> str:
    return str(artifacts.load_text(f"{run.info.artifact_uri}/{name}"))


def locked(clone: Clone) -> dict[str, str]:
    """Return the md5 of every output in dvc.lock."""
    stages = YAML(typ="safe").load(clone.lock)["stages"].values()
    return {out["path"]: out["md5"] for stage in stages for out in stage["outs"]}


def values(run: Run) -> tuple[Any, ...]:
    return run.data.params, run.data.metrics, run.data.tags, run.info.status, run.info.end_time


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with one result, to which the tests below add more, in their order."""
    clone = make_clone(tmp_path_factory.mktemp("tracked") / "clone")
    done = clone.dvc("repro")
    clone.commit("The result")
    (clone.path / ".git" / "output").write_text(done.stdout + done.stderr)
    return clone


def test_row(tracked: Clone) -> None:
    """One `dvc repro` makes one row with everything that CONTRIBUTING.md promises of it."""
    (run,) = rows(tracked)
    sections = YAML(typ="safe").load(tracked.path / "params.yaml").items()
    assert run.data.params == {f"{s}.{k}": str(v) for s, keys in sections for k, v in keys.items()}
    tags = run.data.tags
    assert {tag: tags[tag] for tag in MD5_TAGS} == {
        tag: locked(tracked)[path] for tag, path in MD5_TAGS.items()
    }
    assert tags["mlflow.source.git.commit"] == tracked.git("rev-parse", "HEAD~")
    assert tags["mlflow.source.git.dirty"] == "false"
    assert run.info.run_name == "baseline"
    assert run.info.status == "FINISHED"
    client = client_of(tracked)
    for metric in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        history = client.get_metric_history(run.info.run_id, metric)
        assert [point.step for point in history] == [1, 2, 3]
    result = YAML(typ="safe").load(tracked.path / "data" / "metrics.json")
    assert {f"test/{k}": v for k, v in result.items()}.items() <= run.data.metrics.items()
    assert "Total params: 185" in text(tracked, run, "model_summary.txt")
    assert text(tracked, run, "params.yaml") == (tracked.path / "params.yaml").read_text()
    assert text(tracked, run, "confusion_matrix.html").startswith("<table")
    inputs = {i.tags[0].value: i.dataset.digest for i in run.inputs.dataset_inputs}
    assert inputs == {"training": tags["train_data.md5"], "testing": tags["test_data.md5"]}


def test_logged_model(tracked: Clone) -> None:
    """The row's model carries a signature and the test metrics, and its files are in the clone."""
    (run,) = rows(tracked)
    (output,) = run.outputs.model_outputs
    model = client_of(tracked).get_logged_model(output.model_id)
    assert model.experiment_id == run.info.experiment_id
    assert model.source_run_id == run.info.run_id
    assert model.artifact_location.startswith((tracked.path / "mlartifacts").as_uri())
    names = {m.key: (m.dataset_name, m.dataset_digest) for m in model.metrics}
    assert names["test/accuracy"] == ("test.npz", run.data.tags["test_data.md5"])


def test_quiet(tracked: Clone) -> None:
    """Users see what a stage prints, but none of MLflow's progress bars, warnings or folders."""
    output = (tracked.path / ".git" / "output").read_text()
    for noise in ("Downloading", "Warning", "warning", "alembic", "INFO", "mlflow.store"):
        assert noise not in output
    assert not (tracked.path / "mlruns").exists()
    (run,) = rows(tracked)
    end = output[output.index("Accuracy: ") :].splitlines()
    assert re.fullmatch(r"Accuracy: [01]\.\d{4}", end[0])
    assert re.fullmatch(r"Correctly classified: \d+ of 20", end[1])
    assert end[2] == f"This model: models:/{run.outputs.model_outputs[0].model_id}"
    assert run.info.run_id in end[3]
    assert "viewStateShareKey=results" in end[4]


def test_same_result_again(tracked: Clone) -> None:
    """Case 1: a result or training that is already in the store is not written again."""
    (before,) = rows(tracked)
    lock = tracked.lock
    tracked.dvc("repro", "-f")
    (after,) = rows(tracked)
    assert tracked.lock == lock
    assert after.data.tags.pop("reproduced") == "1"
    assert values(after) == values(before)


def test_other_test_set(tracked: Clone) -> None:
    """Case 3: an evaluation on another test set makes a new row; the old row stays unchanged."""
    (before,) = rows(tracked)
    tracked.set({"test_data.n_samples": 30})
    assert tracked.repro() == ["generate-test-data", "evaluate"]
    new, old = rows(tracked)
    assert values(old) == values(before)
    assert new.data.params == old.data.params | {"test_data.n_samples": "30"}
    assert new.data.metrics["test/n_samples"] == 30
    for metric in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        assert new.data.metrics[metric] == old.data.metrics[metric]
    assert new.data.tags["model.md5"] == old.data.tags["model.md5"]
    assert new.data.tags["test_data.md5"] == locked(tracked)["data/test.npz"]
    assert new.outputs.model_outputs[0].model_id == old.outputs.model_outputs[0].model_id
    assert new.info.run_name == "test_data.n_samples=30"
    assert "n_samples: 30" in text(tracked, new, "params.yaml")


def test_training_not_recorded(reproduced: Clone, tmp_path: Path) -> None:
    """Case 4: a result whose training is not in the store says so until the training is."""
    clone = reproduced.copy(tmp_path / "clone")
    clone.dvc("repro", "-f", "-s", "evaluate")
    (run,) = rows(clone)
    assert "not recorded in this store" in run.data.tags["mlflow.note.content"]
    assert run.data.metrics["test/n_samples"] == 20
    assert run.data.params["train.epochs"] == "3"
    assert "train_data.md5" not in run.data.tags
    assert run.outputs.model_outputs
    clone.dvc("repro", "-f", "-s", "train", "evaluate")
    (run,) = rows(clone)
    assert {"train_data.md5", "test_data.md5"} <= run.data.tags.keys()
    assert run.data.metrics.keys() >= {"train/loss", "test/loss"}
    assert "mlflow.note.content" not in run.data.tags


def test_corrected_evaluation(reproduced: Clone, tmp_path: Path) -> None:
    """A corrected evaluation is another result: it gets a new row, and the old row stays."""
    clone = reproduced.copy(tmp_path / "clone")
    clone.dvc("repro", "-f")
    (before,) = rows(clone)
    code = clone.path / "stages/vanilla_lstm/learning/evaluation.py"
    code.write_text(code.read_text().replace("losses.mean()", "10 * losses.mean()"))
    clone.dvc("repro", "evaluate")
    new, old = rows(clone)
    assert old.data.tags.pop("reproduced") == "1"  # training ran again: this code is in its deps
    assert values(old) == values(before)
    assert new.data.metrics["test/loss"] == pytest.approx(10 * old.data.metrics["test/loss"])
    assert new.data.metrics["train/loss"] == old.data.metrics["train/loss"]
    assert new.data.params == old.data.params
    for tag in MD5_TAGS:
        assert new.data.tags[tag] == old.data.tags[tag]
    clone.dvc("repro", "-f", "-s", "evaluate")
    assert len(rows(clone)) == 2


def test_same_model_with_other_params(reproduced: Clone, tmp_path: Path) -> None:
    """Other params that give the same model make a separate row, which takes over the score.

    DVC restores the evaluation from its cache, so no stage would record it.
    """
    clone = reproduced.copy(tmp_path / "clone")
    clone.dvc("repro", "-f")
    (before,) = rows(clone)
    clone.dvc("exp", "run", "-S", "train.keep=best")  # after so few epochs the last is the best
    new, old = rows(clone)
    assert values(old) == values(before)
    assert new.data.params == old.data.params | {"train.keep": "best"}
    assert new.data.metrics == old.data.metrics
    assert new.info.run_name == "keep=best"
    for tag in MD5_TAGS:
        assert new.data.tags[tag] == old.data.tags[tag]
    assert text(clone, new, "confusion_matrix.html") == text(clone, old, "confusion_matrix.html")


def test_standard_tags(tracked: Clone) -> None:
    """MLflow's columns User, Source and Version are filled; a search by commit finds its rows."""
    tags = rows(tracked)[-1].data.tags
    assert tags["mlflow.user"]
    assert tags["mlflow.source.name"] == "stages/train.py"
    commit = tags["mlflow.source.git.commit"]
    client = client_of(tracked)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment
    found = client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.source.git.commit` = '{commit}'"
    )
    assert found


def test_evaluation_killed_half_way(reproduced: Clone, tmp_path: Path) -> None:
    """The remains of a killed evaluation of other test data do not block a result."""
    clone = reproduced.copy(tmp_path / "clone")
    clone.dvc("repro", "-f", "-s", "train")
    (half,) = rows(clone)
    client_of(clone).log_param(half.info.run_id, "test_data.n_samples", "999")
    clone.dvc("repro", "-f", "-s", "evaluate")
    new, old = rows(clone)
    assert old.info.run_id == half.info.run_id
    assert "test_data.md5" not in old.data.tags
    assert new.data.params["test_data.n_samples"] == "20"
    assert new.data.tags["test_data.md5"] == locked(clone)["data/test.npz"]


def test_pull(reproduced: Clone, tmp_path: Path) -> None:
    """After `dvc pull` nothing runs; `dvc repro -f` fills the new store and keeps dvc.lock."""
    team = reproduced.copy(tmp_path / "team")
    team.dvc("remote", "add", "-d", "team", str(tmp_path / "remote"))
    team.commit("A remote")
    team.dvc("push", "-q")
    subprocess.run(["git", "clone", "-q", team.path, tmp_path / "fresh"], check=True)
    fresh = Clone(tmp_path / "fresh")
    fresh.dvc("pull", "-q")
    assert fresh.repro() == []
    assert not (fresh.path / "mlflow.db").exists()
    fresh.dvc("repro", "-f")
    assert fresh.git("status", "--porcelain", "--", "dvc.lock") == ""
    (run,) = rows(fresh)
    assert run.data.tags["model.md5"] == locked(team)["data/model.keras"]


def test_every_way_of_running(sweep: Clone) -> None:
    """Experiments from the queue, a temporary copy and the workspace are rows of one store."""
    sweep.dvc("exp", "run", "--temp", "-S", "train.epochs=5")
    sweep.dvc("exp", "run", "-n", "here", "-S", "train.epochs=6")
    listed = sweep.dvc("exp", "list", "--name-only", "--all-commits").stdout.split()
    assert sorted(run.data.tags["dvc.exp_name"] for run in rows(sweep)) == sorted(listed)
    found = {
        (run.data.params["train.epochs"], run.data.params["model.units"]): run
        for run in rows(sweep)
    }
    grid = itertools.product(["1", "2", "3", "4"], ["3", "4"])
    assert sorted(found) == [*grid, ("5", "4"), ("6", "4")]
    assert found["6", "4"].data.tags["dvc.exp_name"] == "here"
    for (epochs, units), run in found.items():
        changed = ["units=3"] * (units == "3") + [f"epochs={epochs}"] * (epochs != "3")
        assert run.info.run_name == (" ".join(changed) or "baseline")
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.source.git.commit"] == sweep.git("rev-parse", "HEAD")
        assert run.data.tags["mlflow.source.git.dirty"] == "false"
        assert f"epochs: {epochs}" in text(sweep, run, "params.yaml")
        model = client_of(sweep).get_logged_model(run.outputs.model_outputs[0].model_id)
        folder = Path(model.artifact_location.removeprefix("file://"))
        assert (folder / "data" / "model.keras").is_file()
    assert not list(sweep.path.glob("mlruns"))


def test_folder_of_a_worktree(reproduced: Clone, tmp_path: Path) -> None:
    """A folder's rows, even from a git worktree, go to their own experiment in the main store."""
    main = reproduced.copy(tmp_path / "main")
    main.git("worktree", "add", "-q", str(tmp_path / "tree"))
    folder = tmp_path / "tree" / "properties" / "tiny"
    folder.mkdir(parents=True)
    shutil.copy(main.path / "params.yaml", folder)
    here = Clone(folder)
    here.run(sys.executable, "../../stages/generate_data.py", "train")
    here.run(sys.executable, "../../stages/train.py")
    assert not rows(main)
    (run,) = rows(main, "vanilla-lstm-properties")
    assert run.data.tags["folder"] == "properties/tiny"
    assert run.info.run_name == "tiny"
    assert run.data.tags["mlflow.source.git.dirty"] == "false"
    assert text(main, run, "model_summary.txt")


OPEN_A_ROW = """
import os, sys
sys.path.insert(0, "stages")
from bridge.record.files import Data
from bridge.record.rows import training
from bridge.record.store import Store
from bridge.run.stage import Stage
from vanilla_lstm.task.artifacts import MODEL, TRAIN_DATA
n, store, stage = sys.argv[1], Store("vanilla-lstm"), Stage([])
model = MODEL.with_name(n)
model.write_text(n)
texts = {"model_summary.txt": n}
with training(store, stage, model, Data(TRAIN_DATA), params={}, texts=texts):
    if n == "0":
        os._exit(9)
"""


def test_eight_at_once(clone: Clone) -> None:
    """Eight trainings at once, with no store yet, lose nothing; the next marks a dead one KILLED.

    They log the same data set, and MLflow alone would reject it for some of them.
    """
    clone.run(sys.executable, "stages/generate_data.py", "train")
    started = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_A_ROW, str(i)], cwd=clone.path, env=environment()
        )
        for i in range(8)
    ]
    assert [process.wait() for process in started] == [9, 0, 0, 0, 0, 0, 0, 0]
    clone.run(sys.executable, "-c", OPEN_A_ROW, "8")
    found = {text(clone, run, "model_summary.txt"): run for run in rows(clone)}
    assert sorted(found) == [str(i) for i in range(9)]
    assert found.pop("0").info.status == "KILLED"
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    digest = md5(clone.path / TRAIN_DATA)
    for run in found.values():
        assert [i.dataset.digest for i in run.inputs.dataset_inputs] == [digest]


def test_no_server(reproduced: Clone, tmp_path: Path) -> None:
    """With a silent server, training fails in seconds, before it begins, and shows no password."""
    clone = reproduced.copy(tmp_path / "clone")
    before = (clone.path / "data" / "model.keras").read_bytes()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        started = time.monotonic()
        done = clone.run(
            sys.executable,
            "stages/train.py",
            check=False,
            MLFLOW_TRACKING_URI=f"http://me:pa55word@127.0.0.1:{port}",
        )
        assert time.monotonic() - started < 60  # by itself MLflow would try for four minutes
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"MLflow at http://***@127.0.0.1:{port}: " in done.stderr
    assert "unset MLFLOW_TRACKING_URI" in done.stderr
    assert "pa55word" not in done.stdout + done.stderr
    assert "training" not in done.stdout
    assert (clone.path / "data" / "model.keras").read_bytes() == before


def test_no_database(reproduced: Clone, tmp_path: Path) -> None:
    """A password in an address's query string is not shown either."""
    clone = reproduced.copy(tmp_path / "clone")
    address = "postgresql+psycopg://127.0.0.1:1/rows?user=me&password=pa55word"
    done = clone.run(sys.executable, "stages/train.py", check=False, MLFLOW_TRACKING_URI=address)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "MLflow at postgresql+psycopg://127.0.0.1:1/rows?user=me&password=***: " in done.stderr
    assert "pa55word" not in done.stdout + done.stderr


def test_no_git(reproduced: Clone, tmp_path: Path) -> None:
    """Without git a row names no commit, rather than claiming that nothing has changed."""
    clone = reproduced.copy(tmp_path / "clone")
    clone.set({"train.epochs": 4})
    (tmp_path / "bin").mkdir()
    done = clone.run(sys.executable, "stages/train.py", PATH=str(tmp_path / "bin"))
    assert not done.stderr
    run = rows(clone)[0]
    assert run.info.run_name == "not committed"
    assert run.info.status == "FINISHED"
    assert not {"mlflow.source.git.commit", "mlflow.source.git.dirty"} & run.data.tags.keys()


def test_server_goes_away(reproduced: Clone, tmp_path: Path) -> None:
    """If the server stops during training, only the record is lost, and it can be added later."""
    clone = reproduced.copy(tmp_path / "clone")
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    store += ["--artifacts-destination", str(tmp_path / "artifacts")]
    clone.set({"train.epochs": 2000})
    with serving(clone, "server", *store) as address:
        port = address.rpartition(":")[2]
        uri = f"http://me:pa55word@127.0.0.1:{port}"
        training = subprocess.Popen(
            [sys.executable, "stages/train.py"],
            cwd=clone.path,
            env=environment(MLFLOW_TRACKING_URI=uri),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert training.stdout
        for line in training.stdout:
            if "epoch" in line:
                break
    output = training.communicate()[0]
    assert training.returncode == 0, output
    assert "not recorded; run `dvc repro -f --downstream <stage>` to record it" in output
    assert "pa55word" not in output
    assert len((clone.path / "data" / "training.csv").read_text().splitlines()) == 2001

    clone.set({"train.epochs": 3})
    with serving(clone, "server", *store) as address:
        uri = address.replace("//", "//me:pa55word@")
        done = clone.dvc("repro", "-f", "-s", "train", "evaluate", MLFLOW_TRACKING_URI=uri)
        assert "View run" not in done.stdout + done.stderr  # MLflow prints this by default
        client = MlflowClient(address)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        new, old = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
        assert old.info.status == "KILLED"
        assert new.data.metrics.keys() >= {"train/loss", "test/loss"}
    for path in [tmp_path / "server.db", *(tmp_path / "artifacts").rglob("*")]:
        assert not path.is_file() or b"pa55word" not in path.read_bytes(), path
    assert not (clone.path / "mlflow.db").exists()
