"""What a commit declares of a result counts for the result, whichever commit has it first."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.locked import Locked, locked, trained
from support.pipelines import ARTIFACTS, LOADER, MODEL, Repository, Stages, evaluate, train

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

KEPT_IN_GIT = {"cache": False}


def declare(project: Repository, stages: Stages, message: str, **top: Any) -> str:
    """Commit another dvc.yaml, for which DVC would run nothing; return the commit."""
    project.write({"dvc.yaml": json.dumps({"stages": stages, **top})})
    project.commit(message)
    return project.git("rev-parse", "HEAD")


def bare(stage: dict[str, Any]) -> dict[str, Any]:
    """Return a stage with its metrics and plots as mere outputs."""
    outs = [*stage.get("outs", ()), *stage.pop("metrics", ()), *stage.pop("plots", ())]
    plain = [{path: KEPT_IN_GIT} for out in outs if isinstance(out, dict) for path in out]
    return {**stage, "outs": [*(out for out in outs if isinstance(out, str)), *plain]}


def results(rate: int, a: int) -> dict[str, str]:
    """Return what the stages of `grown` write."""
    scores = {"n": '{"n": 7}', "a": f'{{"score": {a}}}', "b": '{"score": 1}'}
    return {**trained(rate), **{f"{name}.json": text for name, text in scores.items()}}


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Locked, list[str]]:
    """A repository that declares metrics and a model long after its first result."""
    fit = train("raw.txt")
    counted = {**fit, "metrics": [{"n.json": KEPT_IN_GIT}]}
    uncounted = {**fit, "outs": [*fit["outs"], {"n.json": KEPT_IN_GIT}]}
    first: Stages = {"train": uncounted, "a": bare(evaluate("a")), "b": evaluate("b")}
    files = {"loader.py": "# later\n", **results(1, 1)}
    made = locked(tmp_path_factory.mktemp("grown") / "project", first, files=files)
    made.add_store()
    commits = [declare(made, first, "First")]
    with_metrics = {**first, "a": evaluate("a")}
    commits.append(declare(made, with_metrics, "Declare a metric"))
    made.again(results(2, 5), {"rate": 2, "a": 5})
    commits.append(declare(made, with_metrics, "Second"))
    made.write({"loader.py": LOADER})
    last = {**with_metrics, "train": counted}
    commits.append(declare(made, last, "Declare a model and a metric", artifacts=ARTIFACTS))
    return made, commits


def tables(project: Repository) -> list[dict[str, Any]]:
    """Return all that rows show, whatever the order in which they were made."""
    own = ("mlflow.source.git.commit", "mlflow.user", "mlflow.runName", "dvc-mlflow.row")
    found = [
        {
            "own": {key: run.data.tags.get(key) for key in own},
            "kept": {k: v for k, v in run.data.tags.items() if "kept." in k or "lock." in k},
            "start": run.info.start_time,
            "params": run.data.params,
            "metrics": run.data.metrics,
            "models": len(run.outputs.model_outputs) if run.outputs else 0,
            "artifacts": project.artifacts(run),
        }
        for run in project.rows()
    ]
    return sorted(found, key=lambda row: json.dumps(row, sort_keys=True))


def test_orders(grown: tuple[Locked, list[str]], tmp_path: Path) -> None:
    """The table is the same, whether results are recorded at once, backwards, or as they grow."""
    made, commits = grown
    at_once, backwards, grows = (made.copy(tmp_path / name) for name in ("at once", "back", "grow"))
    said = at_once.record("--all")
    assert (said.status, said.error) == (0, "")
    expected = tables(at_once)
    first, second = sorted(expected, key=lambda row: row["params"]["rate"])
    # The first result was replaced before the other metric and the model were declared.
    assert first["metrics"] == {"train/loss": 0.25, "a/score": 1, "b/score": 1}
    assert second["metrics"] == {"train/n": 7, "train/loss": 0.25, "a/score": 5, "b/score": 1}
    assert (first["models"], second["models"]) == (0, 1)
    assert second["own"]["mlflow.source.git.commit"] == commits[2]
    for commit in reversed(commits):
        backwards.record("--rev", commit)
    assert tables(backwards) == expected
    lines = []
    for commit in commits:
        grows.git("reset", "-q", "--hard", commit)
        lines.append(grows.record("--all").out.partition("\n")[0].removeprefix("grow: "))
    assert lines == ["1 row added", "1 row completed", "1 row added", "1 row completed"]
    assert grows.record("--all").out.startswith("nothing to do")
    assert tables(grows) == expected


def test_clocks(grown: tuple[Locked, list[str]], tmp_path: Path) -> None:
    """A result's commit is the first that has it, also where clocks went back."""
    made, commits = grown
    project = made.copy(tmp_path / "clocks")
    found: list[str] = []
    for hour, commit in zip("4321", commits, strict=True):
        parent = ("-p", found[-1]) if found else ()
        date = f"2026-01-01T0{hour}:00:00+00:00"
        words = ("git", "commit-tree", f"{commit}^{{tree}}", *parent, "-m", "Again")
        found.append(project.run(*words, GIT_COMMITTER_DATE=date).stdout.strip())
    project.git("reset", "-q", "--hard", found[-1])
    project.record("--all")
    rows = sorted(project.rows(), key=lambda row: row.data.params["rate"])
    own = [row.data.tags["mlflow.source.git.commit"] for row in rows]
    assert own == [found[0], found[2]]


def test_divided(tmp_path: Path) -> None:
    """Models that are declared later divide new rows; what was recorded together stays so."""
    stages = {
        "words": _scored("words", "rate", "raw.txt"),
        "a": _scored("a", "a", "words.txt"),
        "b": _scored("b", "b", "words.txt"),
    }
    files = {"loader.py": LOADER}
    for name in stages:
        files |= {f"{name}.txt": name, f"{name}.json": '{"score": 1}'}
    project = locked(tmp_path / "project", stages, files=files)
    project.add_store()
    project.commit("First")
    project.record("--all")
    models = {n: {"path": f"{n}.txt", "type": "model", "meta": MODEL} for n in "ab"}
    declare(project, stages, "Two models", artifacts=models)
    assert project.record("--all").out.startswith("nothing to do")
    every = {"words/score": 1, "a/score": 1, "b/score": 1}
    project.again({}, {"a": 3})
    project.commit("Second")
    project.record("--all")
    found = [row.data.metrics for row in project.rows()]
    assert found == [every, {"words/score": 1, "a/score": 1}]
    assert project.record("--all").out.startswith("nothing to do")


def _scored(name: str, param: str, dep: str) -> dict[str, Any]:
    """Return a stage with a result and a score of its own."""
    metrics = [{f"{name}.json": KEPT_IN_GIT}]
    outs = [f"{name}.txt"]
    return {"cmd": "run", "deps": [dep], "params": [param], "outs": outs, "metrics": metrics}
