"""`dvc repro` runs the stages that a change affects, and no others."""

from collections.abc import Iterator
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from support.clone import Clone
from support.pipelines import Repository

pytestmark = pytest.mark.pipeline

GENERATE_TRAIN, TRAIN = "generate-train-data", "train"
GENERATE_TEST, EVALUATE = "generate-test-data", "evaluate"
ALL = {GENERATE_TRAIN, TRAIN, GENERATE_TEST, EVALUATE}


@pytest.fixture(scope="module")
def scratch(reproduced: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A copy for tests that change files but run nothing."""
    return reproduced.copy(tmp_path_factory.mktemp("scratch") / "clone")


@pytest.fixture
def shared(scratch: Clone) -> Iterator[Clone]:
    """The scratch copy; the files in git are restored after each test."""
    yield scratch
    scratch.git("checkout", "-q", ".")


def would_run(clone: Clone) -> set[str]:
    """Return the stages that `dvc repro` would run: those with a change and those after them."""
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


def test_second_repro_runs_nothing(reproduced: Clone) -> None:
    """If nothing has changed, nothing runs."""
    assert "up to date" in Repository(reproduced.path).dvc("repro").stdout


@pytest.mark.parametrize(
    ("changed", "stages"),
    [
        ({"data.n_steps": 12}, ALL),
        ({"train_data.seed": 1}, {GENERATE_TRAIN, TRAIN, EVALUATE}),
        ({"test_data.seed": 1}, {GENERATE_TEST, EVALUATE}),
        ({"model.units": 5}, {TRAIN, EVALUATE}),
        ({"train.epochs": 4}, {TRAIN, EVALUATE}),
        ({"evaluate.batch_size": 10}, {EVALUATE}),
        ({"train.epochs": 3.0, "data.n_steps": 10.0, "model.units": 4.0}, set()),
    ],
    ids=lambda value: str(value if isinstance(value, dict) else sorted(value)),
)
def test_what_would_run(shared: Clone, changed: dict[str, Any], stages: set[str]) -> None:
    """A changed param re-runs the stages that read it and those after them; 4.0 equals 4."""
    shared.set(changed)
    assert would_run(shared) == stages


def test_formatting_runs_nothing(shared: Clone) -> None:
    """Comments, blank lines and the order of keys re-run nothing."""
    file = shared.path / "params.yaml"
    sections = YAML(typ="safe").load(file)
    with file.open("w") as target:
        target.write("# another comment\n\n")
        YAML().dump({name: dict(reversed(s.items())) for name, s in sections.items()}, target)
    assert would_run(shared) == set()
    assert "up to date" in Repository(shared.path).dvc("repro").stdout


@pytest.mark.parametrize(
    ("path", "stages"),
    [
        ("generate_data.py", ALL),
        ("train.py", {TRAIN, EVALUATE}),
        ("evaluate.py", {EVALUATE}),
        ("vanilla_lstm/task/sequences.py", ALL),
        ("vanilla_lstm/learning/training.py", {TRAIN, EVALUATE}),
        ("vanilla_lstm/serving.py", set()),
    ],
)
def test_what_code_would_run(shared: Clone, path: str, stages: set[str]) -> None:
    """Changed code re-runs the stages whose outputs it can change; serving re-runs none."""
    with (shared.path / "stages" / path).open("a") as file:
        file.write("\n# changed\n")
    assert would_run(shared) == stages


def test_stray_files_run_nothing(shared: Clone) -> None:
    """Files that Python, editors and desktops leave in a code folder re-run nothing."""
    folder = shared.path / "stages/vanilla_lstm/task"
    (folder / "__pycache__").mkdir(exist_ok=True)
    strays = ["__pycache__/x.pyc", "sequences.py~", ".x.py.swp", ".DS_Store"]
    for name in strays:
        (folder / name).write_text("stray")
    assert would_run(shared) == set()
    for name in strays:
        (folder / name).unlink()


@pytest.mark.rest
def test_what_runs(reproduced: Clone, copy: Clone) -> None:
    """A changed param runs its stages; setting it back restores all results without a run."""
    copy.set({"test_data.seed": 1})
    assert sorted(copy.repro()) == [EVALUATE, GENERATE_TEST]
    assert copy.repro("--dry") == []
    assert copy.lock != reproduced.lock
    copy.git("checkout", "-q", "params.yaml")
    assert copy.repro() == []  # all from DVC's run cache
    assert copy.lock == reproduced.lock
    assert copy.git("status", "--porcelain") == ""
