"""What a commit declares of a result counts for the result, whichever commit has it first."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from support.pipelines import LOADER, MODEL, Repository, Stages, evaluate, makes, repository, train

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

KEPT_IN_GIT = {"cache": False}


def declare(project: Repository, stages: Stages, message: str, **top: Any) -> str:
    """Commit another dvc.yaml, for which DVC runs nothing; return the commit."""
    project.write({"dvc.yaml": json.dumps({"stages": stages, **top})})
    assert not project.dvc("status", "-q").returncode
    project.commit(message)
    return project.git("rev-parse", "HEAD")


def bare(stage: dict[str, Any]) -> dict[str, Any]:
    """Return a stage with its metrics and plots as mere outputs."""
    outs = [*stage.get("outs", ()), *stage.pop("metrics", ()), *stage.pop("plots", ())]
    plain = [{path: KEPT_IN_GIT} for out in outs if isinstance(out, dict) for path in out]
    return {**stage, "outs": [*(out for out in outs if isinstance(out, str)), *plain]}


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, list[str]]:
    """A repository that declares metrics and a model long after its first result."""
    fit = train("raw.txt")
    fit["cmd"] += "; echo '{\"n\": 7}' > n.json"
    counted = {**fit, "metrics": [{"n.json": KEPT_IN_GIT}]}
    uncounted = {**fit, "outs": [*fit["outs"], {"n.json": KEPT_IN_GIT}]}
    first: Stages = {"train": uncounted, "a": bare(evaluate("a")), "b": evaluate("b")}
    made = repository(
        tmp_path_factory.mktemp("grown") / "project", first, files={"loader.py": "# later\n"}
    )
    made.dvc("repro", "-q")
    made.commit("First")
    commits = [made.git("rev-parse", "HEAD")]
    with_metrics = {**first, "a": evaluate("a")}
    commits.append(declare(made, with_metrics, "Declare a metric"))
    made.set({"rate": 2, "a": 5})
    made.dvc("repro", "-q")
    made.commit("Second")
    commits.append(made.git("rev-parse", "HEAD"))
    commits.append(declare(made, {**with_metrics, "train": counted}, "Declare another"))
    made.write({"loader.py": LOADER})
    served = {**counted, "meta": {"mlflow": {"model": MODEL}}}
    commits.append(declare(made, {**with_metrics, "train": served}, "Declare a model"))
    return made, commits


def tables(project: Repository) -> list[dict[str, Any]]:
    """Return all that rows show, whatever the order in which they were made."""
    own = ("mlflow.source.git.commit", "mlflow.user", "mlflow.runName", "dvc-mlflow.shown.a")
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


def test_orders(grown: tuple[Repository, list[str]], tmp_path: Path) -> None:
    """The table is the same, whether results are recorded at once, one by one, or backwards."""
    made, commits = grown
    found = []
    for name, revisions in {
        "at once": [""],
        "one by one": commits,
        "backwards": commits[::-1],
    }.items():
        project = made.copy(tmp_path / name)
        for revision in revisions:
            said = project.record(*(["--rev", revision] if revision else ["--all"]))
            assert (said.status, said.error) == (0, "")
        found.append(tables(project))
    first, second = sorted(found[0], key=lambda row: row["params"]["rate"])
    # The first result was replaced before the other metric was declared; the model's loader is the
    # checkout's.
    assert first["metrics"] == {"train/loss": 0.25, "a/score": 1, "b/score": 1}
    assert second["metrics"] == {"train/n": 7, "train/loss": 0.25, "a/score": 5, "b/score": 1}
    assert (first["models"], second["models"]) == (1, 1)
    assert second["own"]["mlflow.source.git.commit"] == commits[2]
    assert found[1] == found[0]
    assert found[2] == found[0]


def test_rows_that_are_there(grown: tuple[Repository, list[str]], tmp_path: Path) -> None:
    """Rows are completed as the history grows, also those of which nothing was to do before."""
    made, commits = grown
    at_once, grows = made.copy(tmp_path / "at once"), made.copy(tmp_path / "grows")
    at_once.record("--all")
    said = []
    for commit in commits:
        grows.git("reset", "-q", "--hard", commit)
        said.append(grows.record("--all").out.partition("\n")[0].removeprefix("grows: "))
        assert grows.record("--all").out.startswith("nothing to do")
    assert said == [
        "1 row added",
        "1 row completed",
        "1 row added",
        "1 row completed",
        "2 rows completed",
    ]
    assert tables(grows) == tables(at_once)


def test_clocks(grown: tuple[Repository, list[str]], tmp_path: Path) -> None:
    """A result's commit is the first that has it, also where clocks went back."""
    made, commits = grown
    project = made.copy(tmp_path / "clocks")
    found: list[str] = []
    for hour, commit in zip("54321", commits, strict=True):
        parent = ("-p", found[-1]) if found else ()
        date = f"2026-01-01T0{hour}:00:00+00:00"
        words = ("git", "commit-tree", f"{commit}^{{tree}}", *parent, "-m", "Again")
        found.append(project.run(*words, GIT_COMMITTER_DATE=date).stdout.strip())
    project.git("reset", "-q", "--hard", found[-1])
    project.record("--all")
    rows = sorted(project.rows(), key=lambda row: row.data.params["rate"])
    own = [row.data.tags["mlflow.source.git.commit"] for row in rows]
    assert own == [found[0], found[2]]


def test_prefix(tmp_path: Path) -> None:
    """A row keeps the prefix of its metrics; new rows have that of the checkout."""
    first: Stages = {"a": evaluate("a", "raw.txt"), "b": bare(evaluate("b", "a.json"))}
    project = repository(tmp_path / "project", first)
    project.dvc("repro", "-q")
    project.commit("First")
    project.record()
    now = {"a": first["a"], "b": evaluate("b", "a.json")}
    for name, stage in now.items():
        stage["meta"] = {"mlflow": {"prefix": f"{name}."}}
    declare(project, now, "Declare")
    project.set({"a": 2})
    project.dvc("repro", "-q")
    project.commit("Second")
    project.record("--all")
    metrics = [row.data.metrics for row in project.rows()]
    assert metrics == [{"a/score": 1, "b.score": 1}, {"a.score": 2, "b.score": 1}]
    again = project.copy(tmp_path / "again")
    again.record("--all")
    metrics = [row.data.metrics for row in again.rows()]
    assert metrics == [{"a.score": 1, "b.score": 1}, {"a.score": 2, "b.score": 1}]


def test_divided(tmp_path: Path) -> None:
    """Models that are declared later divide new rows; what was recorded together stays so."""
    stages = {
        "words": _scored("words", "rate", "raw.txt"),
        "a": _scored("a", "a", "words.txt"),
        "b": _scored("b", "b", "words.txt"),
    }
    project = repository(tmp_path / "project", stages, files={"loader.py": LOADER})
    project.dvc("repro", "-q")
    project.commit("First")
    project.record("--all")
    for name in "ab":
        stages[name]["meta"] = {"mlflow": {"model": MODEL}}
    declare(project, stages, "Two models")
    assert "completed" in project.record("--all").out
    (row,) = project.rows()
    every = {"words/score": 1, "a/score": 1, "b/score": 1}
    assert (row.data.metrics, len(row.outputs.model_outputs)) == (every, 2)
    project.set({"a": 3})
    project.dvc("repro", "-q")
    project.commit("Second")
    project.record("--all")
    found = [row.data.metrics for row in project.rows()]
    assert found == [every, {"words/score": 1, "a/score": 1}]
    assert project.record("--all").out.startswith("nothing to do")


def test_joined(tmp_path: Path) -> None:
    """A model that is declared later upstream joins new rows; no result is recorded twice."""
    words = makes({"words": "1"}, outs=["words"], deps=["raw.txt"])
    stages = {
        "words": words,
        "each": {"foreach": ["a", "b"], "do": _scored("${item}", "a", "words")},
    }
    project = repository(tmp_path / "project", stages, files={"loader.py": LOADER})
    project.dvc("repro", "-q")
    project.commit("First")
    project.record("--all")
    first = [row.data.metrics for row in project.rows()]
    assert first == [{"each/score": 1}, {"each/score": 1}]
    words["meta"] = {"mlflow": {"model": MODEL}}
    declare(project, stages, "A model upstream")
    project.record("--all")
    assert len(project.rows()) == 3
    assert [row.data.metrics for row in project.rows() if row.data.metrics] == first
    every = [digest for row in project.rows() for digest in _digests(row, "each")]
    assert len(every) == len({*every}) == 2
    assert project.record("--all").out.startswith("nothing to do")


def _scored(name: str, param: str, dep: str) -> dict[str, Any]:
    """Return a stage with a result and a score of its own."""
    files = {f"{name}.txt": name, f"{name}.json": '{"score": 1}'}
    metrics = [{f"{name}.json": KEPT_IN_GIT}]
    return makes(files, deps=[dep], params=[param], outs=[f"{name}.txt"], metrics=metrics)


def _digests(row: Run, stage: str) -> list[str]:
    tags = row.data.tags.items()
    return [value for key, value in tags if key.startswith(f"dvc-mlflow.lock.{stage}")]
