"""Somebody else's pipeline adopts the bridge: the example, in its own repository."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow import MlflowClient, artifacts, pyfunc
from mlflow.entities import Run
from ruamel.yaml import YAML

from bridge.run.errors import FileError
from bridge.run.files import md5, replacing
from clone import ROOT, Clone, environment, make_clone

EXAMPLE = ROOT / "examples" / "digits"
BRIDGE = ROOT / "stages" / "bridge"
DIFF = "adoption.diff"

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # what MLflow's client warns of in the test's process
]


def rows(clone: Clone, experiment: str = "digits") -> list[Run]:
    """Return the rows of a clone's store, newest first."""
    client = MlflowClient(f"sqlite:///{clone.path}/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id]) if found else []
    return [client.get_run(run.info.run_id) for run in runs]  # with the models that it has logged


def locked(clone: Clone) -> dict[str, str]:
    """Return the md5 of every output in dvc.lock."""
    stages = YAML(typ="safe").load(clone.lock)["stages"].values()
    return {out["path"]: out["md5"] for stage in stages for out in stage["outs"]}


def copy_bridge(folder: Path) -> None:
    """Copy the bridge as its README says."""
    shutil.copytree(BRIDGE, folder / "bridge", ignore=shutil.ignore_patterns("__pycache__"))


def plain_repository(path: Path) -> Clone:
    """Make a repository with the example as it was without the bridge."""
    ignored = shutil.ignore_patterns("bridge", "__pycache__", ".dvc", "dvc.lock")
    clone = Clone(Path(shutil.copytree(EXAMPLE, path, ignore=ignored)))
    for output in ("train", "validation", "test", "model.pkl"):  # if somebody has run it there
        found = path / "data" / output
        shutil.rmtree(found) if found.is_dir() else found.unlink(missing_ok=True)
    clone.git("init", "-q")
    clone.git("apply", "-R", DIFF)
    clone.dvc("init", "-q")
    clone.commit("My pipeline")
    return clone


def adopt(clone: Clone) -> None:
    """Do what the bridge's README and the diff say."""
    copy_bridge(clone.path / "scripts")
    clone.git("apply", DIFF)
    clone.commit("Add the bridge")


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A repository that has adopted the bridge and run once, for all tests: `copy` it."""
    clone = plain_repository(tmp_path_factory.mktemp("adopted") / "clone")
    adopt(clone)
    clone.dvc("repro")
    clone.commit("The results")
    return clone


@pytest.fixture
def clone(adopted: Clone, tmp_path: Path) -> Clone:
    """A copy of that repository with its own store, which has one row."""
    clone = adopted.copy(tmp_path / "clone")
    clone.dvc("repro", "-f", "-s", "train", "evaluate")
    return clone


# The diff


def changed(diff: str, but: Sequence[str] = ()) -> int:
    """Count the lines that a diff adds to Python files, or removes if that is more."""
    count = 0
    for file in re.split(r"^diff --git ", diff, flags=re.M)[1:]:
        name = file.splitlines()[0].rpartition(" b/")[2]
        if name.endswith(".py") and name not in but:
            body = file.partition("\n@@")[2]
            count += max(len(re.findall(rf"^\{sign}", body, re.M)) for sign in "+-")
    return count


def test_the_diff_is_the_manual(tmp_path: Path) -> None:
    """The diff turns a pipeline without the bridge into the example, in at most 25 lines."""
    clone = plain_repository(tmp_path / "clone")
    for script in (clone.path / "scripts").glob("*.py"):
        assert "bridge" not in script.read_text()
    clone.dvc("repro")
    assert not (clone.path / "mlflow.db").exists()
    shutil.copytree(clone.path, tmp_path / "before")
    adopt(clone)
    for name in ("dvc.yaml", ".gitignore", ".dvcignore", *(f"scripts/{n}.py" for n in SCRIPTS)):
        assert (clone.path / name).read_text() == (EXAMPLE / name).read_text(), name
    assert 15 < changed((EXAMPLE / DIFF).read_text(), but=["scripts/serving.py"]) <= 25
    clone.dvc("repro")
    before = Clone(tmp_path / "before")
    assert locked(clone) == locked(before)  # the bridge changes no byte


SCRIPTS = ("prepare", "train", "evaluate", "serving")


def test_changed_lines_can_fail() -> None:
    """Only changed lines of scripts count, not the lines that name the file."""
    diff = "diff --git a/{0} b/{0}\n--- a/{0}\n+++ b/{0}\n@@ -1,2 +1,3 @@\n a\n-b\n+c\n+d\n"
    assert changed(diff.format("a.py") + diff.format("b.py") + diff.format("b.yaml")) == 4
    assert changed(diff.format("a.py") + diff.format("b.py"), but=["b.py"]) == 2


# One row


def test_row(clone: Clone) -> None:
    """A row has both splits, and the md5s of dvc.lock, folders and files alike."""
    (run,) = rows(clone)
    outs, tags = locked(clone), run.data.tags
    assert tags["model.md5"] == outs["data/model.pkl"]
    for split in ("train", "validation", "test"):
        assert tags[f"{split}_data.md5"] == outs[f"data/{split}"]
        assert outs[f"data/{split}"].endswith(".dir")
    inputs = {i.tags[0].value: i.dataset.digest for i in run.inputs.dataset_inputs}
    assert inputs == {
        "training": outs["data/train"],
        "validation": outs["data/validation"],
        "testing": outs["data/test"],
    }
    metrics = YAML(typ="safe").load(clone.path / "reports" / "metrics.json")
    for split in ("validation", "test"):
        for key, value in metrics[split].items():
            assert run.data.metrics[f"{split}/{key}"] == value
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "baseline"
    assert tags["mlflow.source.git.dirty"] == "false"
    assert run.data.params["train.passes"] == "30"
    assert run.data.params["prepare.seed"] == "7"
    client = MlflowClient(f"sqlite:///{clone.path}/mlflow.db")
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 30


def test_restore(clone: Clone) -> None:
    """A row is restored in a separate folder, folders of data included, and nothing runs."""
    (run,) = rows(clone)
    clone.run(sys.executable, "-m", "bridge.restore", run.info.run_id, PYTHONPATH="scripts")
    tree = clone.path / "restored" / run.info.run_name
    assert json.loads(Clone(tree).dvc("status", "--json").stdout) == {}
    assert md5(tree / "data" / "model.pkl") == run.data.tags["model.md5"]
    for split in ("train", "validation", "test"):
        assert md5(tree / "data" / split) == run.data.tags[f"{split}_data.md5"]
    assert len(rows(clone)) == 1


def test_served_by_its_flavor(clone: Clone) -> None:
    """MLflow serves what `mlflow.sklearn.save_model` wrote, and knows which run it belongs to."""
    (run,) = rows(clone)
    (output,) = run.outputs.model_outputs
    client = MlflowClient(f"sqlite:///{clone.path}/mlflow.db")
    model = pyfunc.load_model(client.get_logged_model(output.model_id).artifact_location)
    assert model.metadata.model_id == output.model_id
    assert model.metadata.run_id == run.info.run_id
    assert "sklearn" in model.metadata.flavors
    image = [float(x) for x in first_line(clone, "images").split(",")]
    assert model.predict([image]).shape == (1,)


def first_line(clone: Clone, name: str) -> str:
    return (clone.path / "data" / "test" / f"{name}.csv").read_text().partition("\n")[0]


def test_in_place(tmp_path: Path) -> None:
    """Here the bridge is a link: DVC hashes its target, even in a temporary copy."""
    here = make_clone(tmp_path / "clone")
    example = Clone(here.path / "examples" / "digits")
    example.dvc("exp", "run")
    stages = YAML(typ="safe").load(example.lock)["stages"]
    deps = {dep["path"]: dep["md5"] for dep in stages["train"]["deps"]}
    assert deps["scripts/bridge/run"] == md5(here.path / "stages" / "bridge" / "run")
    example.dvc("exp", "run", "--temp", "-S", "train.passes=3")
    found = rows(here, "digits-examples")
    assert [run.info.run_name for run in found] == ["digits passes=3", "digits"]
    for run in found:
        assert {"test/loss", "validation/loss"} <= run.data.metrics.keys()


# However DVC runs it


def test_every_way_of_running(clone: Clone) -> None:
    """The workspace, --temp, a queue and a git worktree all add to one store."""
    clone.dvc("exp", "run", "-S", "train.passes=4")
    clone.dvc("exp", "run", "--temp", "-S", "train.passes=5")
    clone.dvc("exp", "run", "--queue", "-S", "train.passes=6,7")
    clone.run_queue()
    tree = clone.path.parent / "tree"
    clone.git("stash")
    clone.git("worktree", "add", "-q", str(tree))
    Clone(tree).set({"train.passes": 8})
    Clone(tree).dvc("repro")
    found = {run.data.params["train.passes"]: run for run in rows(clone)}
    assert sorted(found) == ["30", "4", "5", "6", "7", "8"]
    assert len(rows(clone)) == 6
    for passes, run in found.items():
        assert run.info.status == "FINISHED"
        assert run.info.run_name == ("baseline" if passes == "30" else f"passes={passes}")
        assert {"test/loss", "validation/loss"} <= run.data.metrics.keys()
        assert run.data.tags["mlflow.source.git.dirty"] == "false", passes
        assert run.outputs.model_outputs


def test_again(clone: Clone) -> None:
    """A result that is made again is not recorded again."""
    lock = clone.lock
    clone.dvc("repro", "-f")
    (run,) = rows(clone)
    assert clone.lock == lock
    assert run.data.tags["reproduced"] == "1"


def test_evaluation_alone(clone: Clone) -> None:
    """A corrected evaluation is a new row with both splits; the old row stays as it was."""
    (before,) = rows(clone)
    script = clone.path / "scripts" / "evaluate.py"
    script.write_text(script.read_text().replace("log_loss(labels, ", "10 * log_loss(labels, "))
    assert clone.repro() == ["evaluate"]
    new, old = rows(clone)
    assert old.data.metrics == before.data.metrics
    assert old.data.tags == before.data.tags
    for split in ("validation", "test"):
        key = f"{split}/loss"
        assert new.data.metrics[key] == pytest.approx(10 * old.data.metrics[key])
    assert new.data.metrics.keys() == old.data.metrics.keys()
    assert new.data.params == old.data.params
    assert new.outputs.model_outputs[0].model_id == old.outputs.model_outputs[0].model_id
    assert clone.repro("-f", "-s", "evaluate") == ["evaluate"]
    assert len(rows(clone)) == 2


def test_evaluation_of_other_data(clone: Clone) -> None:
    """If one of two splits has changed, the new row has that one, and the old row keeps both."""
    (before,) = rows(clone)
    labels = clone.path / "data" / "test" / "labels.csv"
    clone.run("python", "-c", SHIFT, str(labels))
    clone.dvc("commit", "-f", "prepare")
    assert clone.repro("evaluate") == ["evaluate"]
    new, old = rows(clone)
    assert old.data.metrics == before.data.metrics
    assert new.data.tags["test_data.md5"] == locked(clone)["data/test"]
    assert new.data.metrics["test/accuracy"] < old.data.metrics["test/accuracy"]
    assert "validation/accuracy" not in new.data.metrics
    assert "validation_data.md5" not in new.data.tags


SHIFT = """
import os, pathlib, sys
path = pathlib.Path(sys.argv[1])
labels = path.read_text().splitlines()
path.unlink()  # it may be a link to DVC's cache
path.write_text("".join(f"{label}\\n" for label in labels[1:] + labels[:1]))
"""


def test_killed_training(clone: Clone) -> None:
    """After `kill -9` the next stage says that the row was KILLED."""
    clone.set({"train.passes": 1_000_000})
    command = ["dvc", "repro", "train"]
    with subprocess.Popen(command, cwd=clone.path, env=environment()) as repro:
        while not (running := [run for run in rows(clone) if run.info.status == "RUNNING"]):
            assert repro.poll() is None
            time.sleep(0.1)
        os.kill(int(running[0].data.tags["process"].partition("@")[0]), signal.SIGKILL)
    assert repro.returncode
    clone.set({"train.passes": 3})
    clone.dvc("repro")
    assert sorted(run.info.status for run in rows(clone)) == ["FINISHED", "FINISHED", "KILLED"]


# Pipelines of other shapes

DVC_YAML = """
stages:
  train:
    matrix: {kind: [tree, line], depth: [1, 2]}
    cmd: exec python scripts/train.py ${item.kind} ${item.depth}
    deps: [scripts/train.py, scripts/bridge/run, table.csv]
    params: [config.yaml: [rate]]
    outs: ["models/${item.kind}-${item.depth}"]
  evaluate:
    cmd: exec python scripts/evaluate.py models/tree-1 models/line-2
    deps: [scripts/evaluate.py, scripts/bridge/run, table.csv, models/tree-1, models/line-2]
"""
TRAIN = """
import sys
from bridge.record import Data, Store, training
from bridge.run import run
from bridge.run.params import Path, read

def serve(model, *, path, mlflow_model):
    open("no/such/file")

def main(stage):
    kind, depth = sys.argv[1:]
    model = f"models/{kind}-{depth}"
    config, _ = read(Path("config.yaml"))
    params = {"model": {"kind": kind, "tree": {"depth": int(depth)}}, **config}
    store = Store("models", ["metrics.test/score"], params="config.yaml")
    with training(store, stage, model, Data("table.csv"), params=params) as row:
        row.log_metrics({"train/loss": 1 / int(depth)}, step=1)
        stage.write(model, kind.encode())

run(main, reads=["config.yaml", "table.csv"], folder="models")
"""
EVALUATE = """
import sys
from bridge.record import Data, Store, evaluation
from bridge.run import run

def main(stage):
    store = Store("models", params="config.yaml")
    for model in sys.argv[1:]:
        scores = {"score": len(open(model).read())}
        evaluation(store, stage, model, Data("table.csv"), params={}, metrics=scores)

run(main, reads=sys.argv[1:], folder="models")
"""


@pytest.fixture
def models(tmp_path: Path) -> Clone:
    """A repository with a matrix of trainings and params in config.yaml; nothing has run."""
    files = {"dvc.yaml": DVC_YAML, "scripts/train.py": TRAIN, "scripts/evaluate.py": EVALUATE}
    files |= {"config.yaml": "rate: 1e-3\n", "table.csv": "a\n1\n", ".dvcignore": "__pycache__\n"}
    files[".gitignore"] = "__pycache__\n/mlflow.db*\n/mlartifacts\n"
    for name, text in files.items():
        (tmp_path / "models" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "models" / name).write_text(text)
    copy_bridge(tmp_path / "models" / "scripts")
    clone = Clone(tmp_path / "models")
    clone.git("init", "-q")
    clone.dvc("init", "-q")
    clone.commit()
    return clone


def test_many_models(models: Clone) -> None:
    """Each cell of a matrix has a row, and one script evaluates two models, each in its own row.

    The depth does not change the bytes: two cells share each model, but have separate rows.
    """
    models.dvc("repro")
    found = {run.info.run_name: run for run in rows(models, "models")}
    assert sorted(found) == ["line-1", "line-2", "tree-1", "tree-2"]
    for name, run in found.items():
        kind, depth = name.split("-")
        assert run.info.status == "FINISHED"
        assert run.data.tags["dvc.stage"] == f"train@{name}"
        assert run.data.tags["model.md5"] == md5(models.path / "models" / name)
        assert run.data.tags["mlflow.source.git.dirty"] == "false"
        params = {"model.kind": kind, "model.tree.depth": depth, "rate": "0.001"}
        assert run.data.params == params
        config = artifacts.load_text(f"{run.info.artifact_uri}/config.yaml")
        assert f"depth: {depth}" in config
        # Not served: MLflow keeps the file as it is.
        assert artifacts.load_text(f"{run.info.artifact_uri}/model/{name}") == kind
        assert run.data.metrics["test/score"] == 4
        assert run.data.tags["test_data.md5"] == md5(models.path / "table.csv")
    models.dvc("exp", "run", "-S", "config.yaml:rate=0.5", "train@tree-1")
    assert rows(models, "models")[0].info.run_name == "tree-1 rate=0.5"


def test_model_is_a_folder(models: Clone) -> None:
    """A model can be a folder. Other params that give the same model take over its score."""
    folder = "with stage.writing(model) as path:\n            path.mkdir()"
    folder += "\n            (path / 'weights').write_text(kind)"
    train, evaluate = (models.path / "scripts" / f"{name}.py" for name in ("train", "evaluate"))
    train.write_text(TRAIN.replace("stage.write(model, kind.encode())", folder))
    evaluate.write_text(EVALUATE.replace("open(model)", 'open(f"{model}/weights")'))
    models.dvc("repro", "train@tree-1")
    models.run("python", "scripts/evaluate.py", "models/tree-1")
    models.dvc("repro", "train@tree-2")
    second, first = rows(models, "models")
    outs = locked(models)
    for name, run in [("tree-1", first), ("tree-2", second)]:
        assert run.data.tags["model.md5"] == outs[f"models/{name}"]
        assert artifacts.load_text(f"{run.info.artifact_uri}/model/{name}/weights") == "tree"
        assert run.data.metrics["test/score"] == 4
        assert run.data.params["model.tree.depth"] == name[-1]


def test_one_file_for_training_and_test(models: Clone) -> None:
    """A row on other test data keeps the training's file, even if the first test used it too."""
    evaluate = [sys.executable, "scripts/evaluate.py", "models/tree-1"]
    models.dvc("repro", "train@tree-1")
    models.run(*evaluate)
    (models.path / "other.csv").write_text("b\n2\n")
    (models.path / evaluate[1]).write_text(EVALUATE.replace("table.csv", "other.csv"))
    models.run(*evaluate)
    new, _ = rows(models, "models")
    files = f"{new.info.artifact_uri}/files"
    assert artifacts.load_text(f"{files}/train/table.csv") == "a\n1\n"
    assert artifacts.load_text(f"{files}/test/other.csv") == "b\n2\n"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ('(store, stage, [model, "b"],', "an evaluation has one model: record one for each"),
        ('(store, stage, model, name="train", data=', "name must be one word other than `train`"),
        ('(store, stage, model, name="a/b", data=', "received 'a/b'"),
    ],
)
def test_refused(models: Clone, code: str, error: str) -> None:
    """What a row cannot hold is refused with a one-line error, and nothing is recorded."""
    script = models.path / "scripts" / "evaluate.py"
    script.write_text(EVALUATE.replace("(store, stage, model,", code))
    (models.path / "models").mkdir()
    (models.path / "models" / "a").write_text("a")
    done = models.run("python", "scripts/evaluate.py", "models/a", check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert error in done.stderr.splitlines()[-1]
    assert not rows(models, "models")


def test_name_that_mlflow_refuses(models: Clone) -> None:
    """A metric name that MLflow refuses is reported as such, not as a broken store."""
    models.dvc("repro", "train@tree-1")
    script = models.path / "scripts" / "evaluate.py"
    script.write_text(EVALUATE.replace('"score"', '"f1@0.5"'))
    done = models.run("python", "scripts/evaluate.py", "models/tree-1", check=False)
    assert done.returncode == 1
    assert "test/f1@0.5" in done.stderr.splitlines()[-1]
    assert done.stderr.endswith("; change what is recorded\n")
    script.write_text(EVALUATE)
    models.run("python", "scripts/evaluate.py", "models/tree-1")
    (run,) = rows(models, "models")
    assert run.data.metrics["test/score"] == 4


def test_not_a_number(models: Clone) -> None:
    """A score that is NaN or infinite counts as the same result when it recurs."""
    (models.path / "models").mkdir()
    (models.path / "models" / "a").write_text("a")
    script = models.path / "scripts" / "evaluate.py"
    scores = '"score": float("nan"), "worst": float("-inf"), "size"'
    script.write_text(EVALUATE.replace('"score"', scores))
    for _ in range(2):
        models.run("python", "scripts/evaluate.py", "models/a")
    (run,) = rows(models, "models")
    assert math.isnan(run.data.metrics["test/score"])
    script.write_text(EVALUATE.replace('"score"', scores.replace("nan", "1")))
    models.run("python", "scripts/evaluate.py", "models/a")
    assert len(rows(models, "models")) == 2


def test_training_without_a_model(models: Clone) -> None:
    """A block that writes no model gets an error that says so and does not blame the store."""
    script = models.path / "scripts" / "train.py"
    script.write_text(TRAIN.replace("stage.write(model, kind.encode())", "pass"))
    done = models.run("python", "scripts/train.py", "tree", "1", check=False)
    message = "models/tree-1: was not written by the training; write it within the block"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, message)
    assert "Traceback" not in done.stderr
    assert [run.info.status for run in rows(models, "models")] == ["FAILED"]


def test_error_in_a_training(models: Clone) -> None:
    """A user's own error keeps its whole traceback, and the row says FAILED and why."""
    script = models.path / "scripts" / "train.py"
    failing = '{"width": 1}["depth"]'
    script.write_text(TRAIN.replace("stage.write(model, kind.encode())", failing))
    done = models.dvc("repro", "train@tree-1", check=False)
    assert done.returncode
    assert "Traceback (most recent call last)" in done.stderr
    assert failing in done.stderr
    assert "KeyError: 'depth'" in done.stderr
    (run,) = rows(models, "models")
    assert run.info.status == "FAILED"
    assert run.data.tags["mlflow.note.content"] == "KeyError: 'depth'"


def test_error_in_serving(models: Clone) -> None:
    """If a user's `serve` fails, its whole traceback is shown and the training is kept.

    This includes errors that a store could raise. MLflow keeps the plain model file, evaluations
    still find its row, and a corrected `serve` adds to it.
    """
    script = models.path / "scripts" / "train.py"
    script.write_text(TRAIN.replace("params=params)", "params=params, serve=serve)"))
    done = models.dvc("repro", "train@tree-1")
    assert 'open("no/such/file")' in done.stderr
    assert "FileNotFoundError" in done.stderr
    assert "MLflow cannot serve models/tree-1, and stores it as it is" in done.stderr
    assert "move the file away" not in done.stderr
    (run,) = rows(models, "models")
    assert run.info.status == "FINISHED"
    assert artifacts.load_text(f"{run.info.artifact_uri}/model/tree-1") == "tree"
    for name, n_rows in [("test", 1), ("validation", 1), ("test", 2)]:
        code = EVALUATE.replace("metrics=scores", f'metrics=scores, name="{name}"')
        code = code.replace("len(", f"{n_rows} * len(")
        (models.path / "scripts" / "evaluate.py").write_text(code)
        models.run("python", "scripts/evaluate.py", "models/tree-1")
        assert len(rows(models, "models")) == n_rows
    for run in rows(models, "models"):
        assert artifacts.load_text(f"{run.info.artifact_uri}/model/tree-1") == "tree"
    mended = "mlflow.pyfunc.save_model(path, loader_module='x', mlflow_model=mlflow_model)"
    text = script.read_text().replace('open("no/such/file")', f"import mlflow.pyfunc; {mended}")
    script.write_text(text)
    models.dvc("repro", "-f", "-s", "train@tree-1")
    first = rows(models, "models")[-1]
    assert first.data.tags["reproduced"] == "1"
    assert len(first.outputs.model_outputs) == 1


# Folders


def test_folder_md5_is_dvcs(tmp_path: Path) -> None:
    """A folder's md5 is that in dvc.lock, whatever its files are called and wherever they are."""
    clone = Clone(tmp_path)
    clone.git("init", "-q")
    clone.dvc("init", "-q")
    folder = tmp_path / "folder"
    for name in ("b", "a/b", "a.b/c", "a b", "é", "日本/x", "a/", "A", "a/empty/"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=True) if name.endswith("/") else path.write_text(f"{name}\n")
    (folder / "link").symlink_to("b")
    expected = md5(folder)
    clone.dvc("add", "-q", "folder")
    (out,) = YAML(typ="safe").load(tmp_path / "folder.dvc")["outs"]
    assert expected == out["md5"]
    (folder / "b").unlink()
    assert md5(folder) != expected


def test_folder_is_written_whole(tmp_path: Path) -> None:
    """A folder replaces the existing one as a whole, or leaves it unchanged."""
    folder = tmp_path / "folder"
    for content in ("old", "new"):
        with replacing(folder) as partial:
            partial.mkdir()
            (partial / content).write_text(content)
    with suppress(ZeroDivisionError), replacing(folder) as partial:
        partial.mkdir()
        (partial / "half").write_text("half")
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert [path.name for path in folder.iterdir()] == ["new"]


def test_error_of_another_file(tmp_path: Path) -> None:
    """An error of another file that the block opens is not reported as one of the output."""
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "model"):
        (tmp_path / "weights").read_bytes()
    written = replacing(tmp_path / "model")
    with pytest.raises(FileError, match="model: cannot be written"), written as partial:
        (partial / "file").write_text("in no folder")


# Scripts in the root


@pytest.mark.parametrize(
    ("edited", "status"),
    [("helpers/more.py", 1), ("venv/lib/package.py", 0), (".tox/lib/package.py", 0)],
)
def test_code_is_not_the_environment(tmp_path: Path, edited: str, status: int) -> None:
    """Code that changes while a stage runs stops it; a virtual environment beside it is no code."""
    script = "import sys; from bridge.run import run\n"
    script += "def main(stage):\n    open(sys.argv[1], 'a').write('1')\nrun(main)\n"
    (tmp_path / "script.py").write_text(script)
    for name in ("venv/pyvenv.cfg", edited):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    done = Clone(tmp_path).run(
        "python", "script.py", edited, check=False, PYTHONPATH=str(BRIDGE.parent)
    )
    assert done.returncode == status
    assert ("helpers/more.py: changed while the stage ran" in done.stderr) == bool(status)
