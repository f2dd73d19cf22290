"""The whole pipeline, with a real `dvc` and a real MLflow store, in a temporary clone."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from clone import ROOT, TINY, Clone, make_clone
from processor import processor

pytestmark = pytest.mark.pipeline

GENERATE_TRAIN, TRAIN = "generate-train-data", "train"
GENERATE_TEST, EVALUATE = "generate-test-data", "evaluate"
ALL = {GENERATE_TRAIN, TRAIN, GENERATE_TEST, EVALUATE}


@pytest.fixture(scope="module")
def scratch(reproduced: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A copy for the tests that change files but run nothing."""
    return reproduced.copy(tmp_path_factory.mktemp("scratch") / "clone")


@pytest.fixture
def shared(scratch: Clone) -> Iterator[Clone]:
    """The scratch copy, restored to its last commit after each test."""
    yield scratch
    scratch.git("checkout", "-q", ".")


@pytest.fixture
def copy(reproduced: Clone, tmp_path: Path) -> Clone:
    """A copy of the clone in which the pipeline has run, for a test to change."""
    return reproduced.copy(tmp_path / "copy")


def would_run(clone: Clone) -> set[str]:
    """Return the stages that `dvc repro` would run: those that changed and those after them."""
    stages: dict[str, Any] = YAML(typ="safe").load(clone.path / "dvc.yaml")["stages"]
    with Repo(str(clone.path)) as repo:
        status = repo.status(targets=[str(clone.path / "dvc.yaml")])
    found = {name.split(":")[-1] for name in status}
    while True:
        made = {out for name in found for out in map(str, stages[name].get("outs", []))}
        after = {name for name, stage in stages.items() if made & set(stage["deps"])}
        if after <= found:
            return found
        found |= after


def test_first_repro(reproduced: Clone) -> None:
    """One `dvc repro` makes every output; dvc.lock and the small outputs belong in git."""
    made = {path.name for path in (reproduced.path / "data").iterdir()} - {".gitignore"}
    data_sets = {"train.npz", "test.npz"}
    outputs = {"training.csv", "metrics.json"}
    others = {"model.keras", "model_summary.txt", "predictions.csv", "confusion_matrix.html"}
    assert made == data_sets | outputs | others
    in_git = reproduced.git("ls-files", "data").split()
    assert {Path(name).name for name in in_git} == outputs | {".gitignore"}
    changed = reproduced.git("diff", "--name-only", "HEAD~1").split()
    assert set(changed) == {"dvc.lock", *(f"data/{name}" for name in outputs)}
    locked = YAML(typ="safe").load(reproduced.lock)["stages"]
    assert set(locked) == ALL


def test_second_repro_runs_nothing(reproduced: Clone) -> None:
    """If nothing has changed, nothing runs."""
    assert "up to date" in reproduced.dvc("repro").stdout
    assert reproduced.repro() == []


@pytest.mark.parametrize(
    ("changed", "stages"),
    [
        ({"data.n_steps": 12}, ALL),
        ({"data.targets": [2]}, ALL),
        ({"data.insert": 2}, ALL),
        ({"data.per_step": True}, ALL),
        ({"train_data.seed": 1}, {GENERATE_TRAIN, TRAIN, EVALUATE}),
        ({"train_data.n_samples": 50}, {GENERATE_TRAIN, TRAIN, EVALUATE}),
        ({"test_data.seed": 1}, {GENERATE_TEST, EVALUATE}),
        ({"test_data.n_steps": 20}, {GENERATE_TEST, EVALUATE}),
        ({"model.units": 5}, {TRAIN, EVALUATE}),
        ({"model.cell": "simple_rnn"}, {TRAIN, EVALUATE}),
        ({"train.epochs": 4}, {TRAIN, EVALUATE}),
        ({"train.learning_rate": 0.01}, {TRAIN, EVALUATE}),
        ({"evaluate.batch_size": 10}, {EVALUATE}),
        ({"train.epochs": 3.0, "data.n_steps": 10.0, "model.units": 4.0}, set()),
    ],
    ids=lambda value: str(value if isinstance(value, dict) else sorted(value)),
)
def test_what_would_run(shared: Clone, changed: dict[str, Any], stages: set[str]) -> None:
    """A changed param re-runs the stages that read it and those after them; 25.0 equals 25."""
    shared.set(changed)
    assert would_run(shared) == stages


def test_formatting_runs_nothing(shared: Clone) -> None:
    """Comments, blank lines and the order of keys leave everything up to date."""
    file = shared.path / "params.yaml"
    sections = YAML(typ="safe").load(file)
    with file.open("w") as target:
        target.write("# another comment\n\n")
        YAML().dump({name: dict(reversed(s.items())) for name, s in sections.items()}, target)
    assert would_run(shared) == set()
    assert "up to date" in shared.dvc("repro").stdout


@pytest.mark.parametrize(
    ("path", "stages"),
    [
        ("generate_data.py", ALL),
        ("train.py", {TRAIN, EVALUATE}),
        ("evaluate.py", {EVALUATE}),
        ("vanilla_lstm/task/sequences.py", ALL),
        ("vanilla_lstm/learning/training.py", {TRAIN, EVALUATE}),
        ("vanilla_lstm/serving.py", set()),
        ("vanilla_lstm/learning/plots.py", {TRAIN, EVALUATE}),
    ],
)
def test_what_code_would_run(shared: Clone, path: str, stages: set[str]) -> None:
    """Code re-runs the stages whose outputs it can change; serving re-runs none."""
    with (shared.path / "stages" / path).open("a") as file:
        file.write("\n# changed\n")
    assert would_run(shared) == stages


@pytest.mark.parametrize("name", ["__pycache__/x.pyc", "sequences.py~", ".x.py.swp", ".DS_Store"])
def test_stray_files_run_nothing(shared: Clone, name: str) -> None:
    """Files that Python, editors and desktops leave in a code folder do not count as changes."""
    stray = shared.path / "stages/vanilla_lstm/task" / name
    stray.parent.mkdir(exist_ok=True)
    stray.write_text("stray")
    assert would_run(shared) == set()
    stray.unlink()


def test_recording_decides_no_byte(reproduced: Clone, copy: Clone) -> None:
    """Without the tool every md5 stays the same, so it need not be a dep."""
    file = copy.path / "dvc.yaml"
    file.write_text(file.read_text().replace("dvc-mlflow run ", ""))
    assert len(copy.repro("-f", "--no-run-cache")) == 4
    assert copy.lock == reproduced.lock.replace("dvc-mlflow run ", "")
    assert not (copy.path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("changed", "stages"),
    [
        ({"evaluate.batch_size": 10}, [EVALUATE]),
        ({"test_data.seed": 1}, [GENERATE_TEST, EVALUATE]),
        ({"model.units": 5}, [TRAIN, EVALUATE]),
        ({"data.n_steps": 12}, [GENERATE_TEST, GENERATE_TRAIN, TRAIN, EVALUATE]),
    ],
    ids=lambda value: str(value if isinstance(value, dict) else sorted(value)),
)
def test_what_runs(
    reproduced: Clone, copy: Clone, changed: dict[str, Any], stages: list[str]
) -> None:
    """The expected stages run, and setting the param back restores everything without a run."""
    copy.set(changed)
    assert sorted(copy.repro()) == sorted(stages)
    assert copy.repro("--dry") == []
    assert copy.lock != reproduced.lock
    copy.git("checkout", "-q", "params.yaml")
    assert copy.repro() == []  # all from DVC's run cache
    assert copy.lock == reproduced.lock
    assert copy.git("status", "--porcelain") == ""


def test_forced_repro_changes_nothing(reproduced: Clone, tmp_path: Path) -> None:
    """The same params give the same bytes again, in another folder and on one core."""
    clone = make_clone(tmp_path / "another folder" / "clone")
    for prefix in ([], ["taskset", "-c", "0"]):
        done = clone.run(*prefix, "dvc", "repro", "-f", "--no-run-cache")
        assert done.stdout.count("Running stage") == 4
        assert clone.lock == reproduced.lock
    for name in ("training.csv", "metrics.json", "predictions.csv"):
        made = [(c.path / "data" / name).read_bytes() for c in (clone, reproduced)]
        assert made[0] == made[1]


RESULTS = ["main", *sorted(p.parent.name for p in ROOT.glob("properties/claims/*/params.yaml"))]


@pytest.mark.parametrize("name", RESULTS)
def test_committed_result(tmp_path: Path, slow: bool, name: str) -> None:
    """This machine makes the committed results from params.yaml, byte for byte."""
    if not slow:
        pytest.skip("is about this machine's processor: `make test-slow`")
    clone = make_clone(tmp_path / "clone", params={})
    if name == "main":
        assert len(clone.repro()) == 4
    else:
        clone.run("dvc", "--cd", "properties", "repro", f"evaluate@{name}")
    assert clone.git("status", "--porcelain") == "", processor()


def test_metrics(reproduced: Clone, copy: Clone) -> None:
    """`dvc metrics show` prints the result, and `dvc metrics diff` what a change did to it."""
    shown = json.loads(reproduced.dvc("metrics", "show", "--json").stdout)
    metrics = shown[""]["data"]["data/metrics.json"]["data"]
    assert set(metrics) == {"loss", "accuracy", "correctly_classified", "n_samples"}
    assert metrics["n_samples"] == TINY["test_data.n_samples"]
    assert metrics["accuracy"] == metrics["correctly_classified"] / metrics["n_samples"]
    assert "correctly_classified" in reproduced.dvc("metrics", "show").stdout
    metrics["correctly_classified"] += 1
    (copy.path / "data/metrics.json").write_text(json.dumps(metrics))
    diff = json.loads(copy.dvc("metrics", "diff", "--json").stdout)
    assert diff["data/metrics.json"]["correctly_classified"]["diff"] == 1


def test_plots(copy: Clone) -> None:
    """`dvc plots show` draws both losses, both accuracies and the confusion matrix."""
    copy.dvc("plots", "show")
    page = (copy.path / "dvc_plots/index.html").read_text()
    for series in ("loss", "val_loss", "accuracy", "val_accuracy", "predicted", "actual"):
        assert f'"{series}"' in page
    assert "Confusion matrix" in page
    rows = (copy.path / "data/training.csv").read_text().splitlines()
    assert rows[0] == "epoch,n_steps,loss,accuracy,val_loss,val_accuracy"
    assert len(rows) == 1 + TINY["train.epochs"]
    for value in rows[-1].split(",")[2:]:
        assert value in page
    specs = json.loads(copy.dvc("plots", "show", "--json").stdout)["data"]
    assert {"loss", "accuracy", "data/predictions.csv"} <= set(specs)


def test_outputs_name_no_place_and_no_time(reproduced: Clone) -> None:
    """No output contains the folder that it was made in or the user's home folder."""
    for path in (reproduced.path / "data").iterdir():
        content = path.read_bytes()
        assert str(reproduced.path).encode() not in content
        assert b"/home/" not in content
        assert b"0x" not in content or path.suffix in {".npz", ".keras"}


def test_no_bar_without_a_terminal(copy: Clone) -> None:
    """Without a terminal, a training prints a few plain lines and no progress bar."""
    shutil.rmtree(copy.path / ".dvc/cache/runs")
    done = copy.dvc("repro", "-f", "-s", "train")
    lines = done.stdout.splitlines() + done.stderr.splitlines()
    assert any("parameters" in line for line in lines)
    assert not any("%|" in line for line in lines)
    assert len(lines) < 20


@pytest.mark.usefixtures("as_committed")
@pytest.mark.parametrize("folder", [".", "properties"])
def test_committed_locks_are_of_this_code(tmp_path: Path, folder: str) -> None:
    """DVC has nothing to run in a fresh clone, except `report`, whose deps are not all in git."""
    subprocess.run(["git", "clone", "-q", ROOT, tmp_path / "clone"], check=True)
    clone = Clone(tmp_path / "clone" / folder)
    stages = ["evaluate", "measure"] if folder == "properties" else []
    assert clone.repro("--dry", "--allow-missing", *stages) == []


def test_params_that_no_stage_reads(reproduced: Clone, tmp_path: Path) -> None:
    """`make repro` reports mistakes that DVC does not see: equal values and unread sections."""
    clone = reproduced.copy(tmp_path / "clone")
    params = clone.path / "params.yaml"
    good = params.read_text()
    for text, line in [
        (good.replace("marked: true", "marked: 1"), "data.marked: must be true or false"),
        (f"{good}\nevaluat: {{}}\n", "evaluat: must not be given: there is no such key"),
    ]:
        params.write_text(text)
        assert clone.repro() == []
        check = [sys.executable, "-m", "vanilla_lstm.task.params"]
        done = clone.run(*check, check=False, PYTHONPATH="stages")
        assert done.returncode == 1
        assert done.stderr.startswith(f"params.yaml: {line}")
        assert done.stderr.count("\n") == 1


def test_one_changed_value_is_one_changed_line(reproduced: Clone, tmp_path: Path) -> None:
    """The committed params.yaml files are formatted as DVC writes them, with comments."""
    clone = reproduced.copy(tmp_path / "clone")
    for path in [Path("params.yaml"), *sorted(ROOT.glob("properties/claims/*/params.yaml"))]:
        shutil.copy(ROOT / path, clone.path / "params.yaml")
        clone.commit("As committed, if the user has changed nothing")
        apply_overrides(str(clone.path / "params.yaml"), ["train.seed=9", "train.clipnorm=1"])
        changed = clone.git("diff", "--numstat", "params.yaml").split()
        assert changed[:2] == ["2", "2"], path


def test_experiment_changes_one_line(reproduced: Clone, tmp_path: Path) -> None:
    """`dvc exp run -S` and `dvc exp apply` change one line of params.yaml."""
    clone = reproduced.copy(tmp_path / "clone")
    clone.dvc("exp", "run", "-n", "wide", "-S", "model.units=5")
    for _ in range(2):
        changed = clone.git("diff", "-U0", "params.yaml").splitlines()
        (line,) = [text for text in changed if text.startswith("+ ")]
        assert line.split() == "+  units: 5  # width of the cell, 1 or more; the post's".split()  # noqa: SIM905
        clone.git("checkout", ".")
        clone.dvc("exp", "apply", "wide")
