"""The pipeline gives the same bytes in any folder, on any number of cores, recorded or not."""

import re
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from support.clone import ROOT, Clone, make_clone
from support.processor import processor

pytestmark = pytest.mark.pipeline

ALL = {"generate-train-data", "train", "generate-test-data", "evaluate"}


def test_first_repro(reproduced: Clone) -> None:
    """One `dvc repro` makes every output; dvc.lock and the small outputs are for git."""
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


def test_forced_repro_changes_nothing(reproduced: Clone, tmp_path: Path) -> None:
    """The same params give the same bytes again, in another folder and without the tool.

    Without a terminal, users see a few plain lines of the scripts, and nothing else.
    """
    clone = make_clone(tmp_path / "another folder" / "clone")
    clone.remove_store()
    file = clone.path / "dvc.yaml"
    file.write_text(file.read_text().replace("dvc-mlflow run ", ""))
    done = clone.dvc("repro", "-f", "--no-run-cache")
    assert clone.lock == reproduced.lock.replace("dvc-mlflow run ", "")
    for name in ("training.csv", "metrics.json", "predictions.csv"):
        made = [(c.path / "data" / name).read_bytes() for c in (clone, reproduced)]
        assert made[0] == made[1]
    assert not [path for path in clone.path.iterdir() if path.name in ("mlflow.db", "mlruns")]
    for noise in ("Downloading", "arning", "alembic", "INFO", "mlflow", "it/s", "%|"):
        assert noise not in done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.startswith("Running stage ") for line in lines) == 4
    end = next(i for i, line in enumerate(lines) if line.startswith("Accuracy: "))
    assert re.fullmatch(r"Accuracy: [01]\.\d{4}", lines[end])
    assert re.fullmatch(r"Correctly classified: \d+ of 20", lines[end + 1])
    assert any("parameters" in line for line in lines)
    assert len(lines) < 40
    assert done.stderr == ""


RESULTS = ["main", *sorted(p.parent.name for p in ROOT.glob("claims/*/params.yaml"))]


@pytest.mark.parametrize("name", RESULTS)
def test_committed_result(tmp_path: Path, slow: bool, name: str) -> None:
    """This machine makes the committed results from params.yaml, byte for byte."""
    if not slow:
        pytest.skip("is about this machine's processor: `pytest --slow`")
    clone = make_clone(tmp_path / "clone", params={})
    if name == "main":
        assert len(clone.repro()) == 4
    else:
        clone.run("dvc", "--cd", "claims", "repro", f"evaluate@{name}")
    assert clone.git("status", "--porcelain") == "", processor()


def test_outputs_name_no_place_and_no_time(reproduced: Clone) -> None:
    """No output contains the folder that it was made in, the home folder or a memory address."""
    for path in (reproduced.path / "data").iterdir():
        content = path.read_bytes()
        assert str(reproduced.path).encode() not in content
        assert b"/home/" not in content
        assert b"0x" not in content or path.suffix in {".npz", ".keras"}


@pytest.mark.usefixtures("as_committed")
@pytest.mark.parametrize("folder", [".", "claims"])
def test_committed_locks_are_of_this_code(tmp_path: Path, folder: str) -> None:
    """DVC runs nothing in a fresh clone, except `report`, whose deps are not all in git.

    Stray files run nothing either: the claims' stages are behind a link, as DVC ignores nothing
    outside of a project.
    """
    subprocess.run(["git", "clone", "-q", ROOT, tmp_path / "clone"], check=True)
    (tmp_path / "clone/stages/vanilla_lstm/task/sequences.py~").write_text("stray")
    clone = Clone(tmp_path / "clone" / folder)
    stages = ["evaluate", "measure"] if folder == "claims" else []
    assert clone.repro("--dry", "--allow-missing", *stages) == []
