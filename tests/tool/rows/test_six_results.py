"""Many results at once: after five searches, all runs of a small store are read instead."""

import json
from pathlib import Path

import pytest

from support.locked import locked
from support.pipelines import ARTIFACTS, LOADER, repository, train
from support.promoting import gto, registered

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

ITEMS = {
    "fit": {
        "foreach": [*range(7)],
        "do": {"cmd": "run", "deps": ["raw.txt"], "metrics": [{"m${item}.json": {"cache": False}}]},
    }
}


def test_dry_run(tmp_path: Path) -> None:
    """Seven results without a store: `--dry-run` says so, and makes none."""
    files = {f"m{n}.json": json.dumps({"n": n}) for n in range(7)}
    project = locked(tmp_path / "project", ITEMS, files=files)
    said = project.record("--dry-run")
    assert (said.out.count("would add"), said.status) == (7, 0)
    assert not (project.path / "mlflow.db").exists()
    project.add_store()
    assert project.record().out.count("added") == 7
    assert project.record().out.startswith("nothing to do")


@pytest.mark.rest
def test_registry_of_a_new_store(tmp_path: Path) -> None:
    """Seven versions of different results are shown at once, as in a store that was lost."""
    stages, files = {"train": train("raw.txt")}, {"loader.py": LOADER}
    project = repository(tmp_path / "project", stages, files=files, artifacts=ARTIFACTS)
    for rate in range(7):
        project.set({"rate": rate})
        project.dvc("repro", "-q")
        project.commit(f"Rate {rate}")
        gto(project, "register", "clf")
    said = project.record("--all")
    assert (said.status, said.error) == (0, ""), said
    assert {*registered(project)} == {f"v0.0.{n}" for n in range(1, 8)}
