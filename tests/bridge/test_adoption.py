"""Somebody else's pipeline takes the bridge over: the example, in a repository of its own."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from mlflow import MlflowClient, pyfunc
from mlflow.entities import Run
from ruamel.yaml import YAML

from clone import ROOT, Clone, environment

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
    return list(client.search_runs([found.experiment_id])) if found else []


def locked(clone: Clone) -> dict[str, str]:
    """Return the md5 of every output in dvc.lock."""
    stages = YAML(typ="safe").load(clone.lock)["stages"].values()
    return {out["path"]: out["md5"] for stage in stages for out in stage["outs"]}


def copy_bridge(folder: Path) -> None:
    """Copy the bridge as its README says."""
    shutil.copytree(BRIDGE, folder / "bridge", ignore=shutil.ignore_patterns("__pycache__"))


def plain_repository(path: Path) -> Clone:
    """Make a repository with the example as it was before it knew of the bridge."""
    ignored = shutil.ignore_patterns("bridge", "__pycache__", ".dvc", "dvc.lock")
    clone = Clone(Path(shutil.copytree(EXAMPLE, path, ignore=ignored)))
    for output in ("train", "validation", "test", "model.pkl"):  # of whoever has run it there
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
    """A repository that has taken the bridge over and run once, for all tests: `copy` it."""
    clone = plain_repository(tmp_path_factory.mktemp("adopted") / "clone")
    adopt(clone)
    clone.dvc("repro")
    clone.commit("The results")
    return clone


@pytest.fixture
def clone(adopted: Clone, tmp_path: Path) -> Clone:
    """That repository with the row of its one result in a store of its own."""
    clone = adopted.copy(tmp_path / "clone")
    clone.dvc("repro", "-f", "-s", "train", "evaluate")
    return clone


# The diff


def changed(diff: str, but: Sequence[str] = ()) -> int:
    """Count the lines that a diff adds to Python files, or takes from them if there are more."""
    count = 0
    for file in re.split(r"^diff --git ", diff, flags=re.M)[1:]:
        name = file.splitlines()[0].rpartition(" b/")[2]
        if name.endswith(".py") and name not in but:
            body = file.partition("\n@@")[2]
            count += max(len(re.findall(rf"^\{sign}", body, re.M)) for sign in "+-")
    return count


def test_the_diff_is_the_manual(tmp_path: Path) -> None:
    """It turns a pipeline that runs without the bridge into the example, in at most 25 lines."""
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
    """Only changed lines of scripts count, and not those that say which file it is."""
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


def test_served_by_its_flavor(clone: Clone) -> None:
    """MLflow serves what `mlflow.sklearn.save_model` has written, and knows whose model it is."""
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


# However DVC runs it


def test_every_way_of_running(clone: Clone) -> None:
    """The workspace, --temp, a queue and a git worktree all add to the one store."""
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
    """What is made again is not recorded again."""
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
    """Of two splits only one has changed: the new row has that one, the old row keeps both."""
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
