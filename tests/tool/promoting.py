"""Pipelines whose rows compete, and `dvc-mlflow promote` on them."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from mlflow.entities import Run

from pipelines import LOADER, PARAMS, SERVED, Repository, Stages, repository

TRAP = f"open(__file__ + '.ran', 'w')\n{LOADER}"
"""A loader that leaves a file where it is imported."""


def measure(*deps: str, promote: Any = ("test/score", "-test/loss"), **more: Any) -> dict[str, Any]:
    """Return a stage that measures the params `a` and `b` as score and loss, on test.txt."""
    number = "$(sed -n 's/^{}: //p' params.yaml)".format
    text = f'{{\\"score\\": {number("a")}, \\"loss\\": {number("b")}}}'
    mlflow = {"prefix": "test/", "promote": [*promote], **more}
    return {
        "cmd": f'echo "{text}" > test.json',
        "deps": ["model.txt", *(deps or ("test.txt",))],
        "params": ["a", "b"],
        "metrics": [{"test.json": {"cache": False}}],
        "meta": {"mlflow": mlflow},
    }


def project_of(path: Path, stages: Stages, params: Any = PARAMS) -> Repository:
    """Return a repository in which these stages have run and been recorded."""
    files = {"loader.py": TRAP, "test.txt": "1\n", "labels.txt": "1\n"}
    project = repository(path / "project", stages, params, files, data=["test.txt"])
    project.dvc("repro", "-q")
    project.commit("The results")
    assert project.record().status == 0
    return project


def measured(folder: Path) -> Repository:
    """Make a pipeline in a folder whose model is measured on data that DVC tracks."""
    return project_of(folder, {"train": SERVED["train"], "measure": measure()})


def row(project: Repository, **params: float) -> Run:
    """Run the pipeline with other params, and return its row."""
    project.set(params)
    project.dvc("repro", "-q")
    assert project.record().status == 0
    return project.rows()[-1]


def promoted(project: Repository, run: Run) -> str:
    """Promote a row; return the champion's version."""
    said = project.tool("promote", run.info.run_id)
    assert (said.status, said.error) == (0, ""), said
    start, _, end = said.out.partition(" is version ")
    version, _, rest = end.partition(", ")
    assert start == "models:/project@champion"
    assert rest == f"the model of row {run.info.run_id}\n"
    found = project.client.get_model_version_by_alias("project", "champion")
    assert (str(found.version), found.tags) == (version, {"dvc.row": run.info.run_id})
    assert found.source == f"models:/{run.outputs.model_outputs[0].model_id}"
    return version


def refused(project: Repository, run: Run | str) -> str:
    """Return why a row is not promoted; the registry stays as it is."""
    before = registry(project)
    run_id = run if isinstance(run, str) else run.info.run_id
    said = project.tool("promote", run_id)
    assert (said.status, said.out) == (1, "")
    assert said.error.count("\n") == 1
    assert said.error.replace("\n", "").isprintable()
    assert registry(project) == before
    return said.error.removeprefix("dvc-mlflow: ").removeprefix(f"{run_id}: not promoted; ")[:-1]


def registry(project: Repository) -> list[tuple[object, ...]]:
    """Return all that is registered."""
    found: list[tuple[object, ...]] = []
    with closing(sqlite3.connect(project.path / "mlflow.db")) as store:
        for table in ("registered_models", "model_versions", "registered_model_aliases"):
            found += store.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
    return found
