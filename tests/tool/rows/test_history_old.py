"""`record --all` reads old, changed and broken files of DVC's, and names what it cannot read."""

import json
from pathlib import Path

import pytest

from support.histories import by, history
from support.locked import evaluated, locked, read, trained
from support.pipelines import TWO_EVALUATIONS, Repository, evaluate, repository, train

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def test_stages_of_before(tmp_path: Path) -> None:
    """Results from before the tool was adopted are recorded for the stages recorded today.

    Those from before a stage was renamed are recorded under its old name.
    """
    project = locked(tmp_path / "project", TWO_EVALUATIONS, files=evaluated())
    project.add_store()
    project.commit("Without the tool")
    stages = {name: {**stage} for name, stage in TWO_EVALUATIONS.items()}
    for name in ("train", "a"):
        stages[name]["cmd"] = f"dvc-mlflow run -c {json.dumps(stages[name]['cmd'])}"
    project.again({"dvc.yaml": json.dumps({"stages": stages}), **evaluated(2)}, {"rate": 2})
    project.commit("With the tool")
    project.record("--all")
    assert {rate: {*row.data.metrics} for rate, row in by("rate", project).items()} == {
        rate: {"train/loss", "a/score"} for rate in ("1", "2")
    }

    project = locked(tmp_path / "renamed", {"fit": train("raw.txt")}, files=trained())
    project.add_store()
    project.commit("Before")
    cmd = f"dvc-mlflow run -c {json.dumps(train('raw.txt')['cmd'])}"
    renamed = {"stages": {"train": {**train("raw.txt"), "cmd": cmd}}}
    (project.path / "dvc.lock").unlink()
    project.again({"dvc.yaml": json.dumps(renamed)})
    project.commit("After")
    project.record("--all")
    assert {row.data.tags["dvc.stage"] for row in project.rows()} == {"fit", "train"}


def test_single_stage_file(tmp_path: Path) -> None:
    """A `.dvc` file with a command, as DVC 0.x wrote it, is recorded as a stage."""
    project = repository(tmp_path / "project", {})
    project.run("rm", "dvc.yaml")
    old = "cmd: echo 1\ndeps:\n- path: raw.txt\n  md5: b026324c6904b2a9cb4b88d6d61c81d1\nouts:\n"
    score = '{"score": 3}\n'
    project.write({"score.json": score})
    md5 = project.run("md5sum", "score.json").stdout.split()[0]
    out = f"- path: score.json\n  md5: {md5}\n  cache: false\n  metric: true\n"
    project.write({"score.json.dvc": f"{old}{out}"})
    project.commit("As DVC 0.x wrote it")
    said = project.record("--all")
    assert said.status == 0
    (row,) = project.rows()
    assert [*row.data.metrics.values()] == [3]


@pytest.mark.parametrize("ignores", ["data/", "data/**/*\n!data/**/*.dvc"])
def test_ignored_dvc_file(tmp_path: Path, ignores: str) -> None:
    """A `.dvc` file that git tracks though it ignores it is as in a checkout: DVC reads none."""
    project = repository(tmp_path / "project", {"train": train("data/x.csv")})
    project.write({"data/x.csv": "1\n"})
    project.dvc("add", "-q", "data/x.csv")
    project.git("add", "-f", "data/x.csv.dvc")
    project.write({".gitignore": f"/mlflow.db*\n/mlartifacts/\n{ignores}\n"})
    project.dvc("repro", "-q")
    project.commit("A result")
    assert project.record("--all").out.startswith("project: 1 row added\nall rows: ")
    assert project.record().out.startswith("nothing to do: MLflow has this result")
    assert len(project.rows()) == 1


def test_what_cannot_be_read(tmp_path: Path) -> None:
    """Commits that DVC cannot read cost one line for each reason; all others are recorded."""
    project = history(tmp_path / "project", 2)
    good = (project.path / "dvc.yaml").read_text()
    broken = {
        "not YAML": "stages: [",
        "vars": json.dumps({**json.loads(good), "vars": ["none.yaml"]}),
        "key": json.dumps({"stages": {"train": {"cmd": "${nothing}"}}}),
        "outs": json.dumps({"stages": {name: {"cmd": "x", "outs": ["x"]} for name in "ab"}}),
    }
    for text in broken.values():
        project.write({"dvc.yaml": text})
        project.commit("Break it")
    project.write({"dvc.yaml": good, "dvc.lock": "stages: {train: [1]}\nschema: '2.0'\n"})
    project.commit("Break the lock")
    project.write({"dvc.lock": "\tx: ["})
    project.commit("Break the lock more")
    said = project.record("--all")
    assert said.status == 0
    assert "Traceback" not in said.error
    lines = said.error.splitlines()
    assert len(lines) == 6
    assert any("dvc.lock: the entry of train cannot be read" in line for line in lines)
    assert any("none.yaml" in line for line in lines)
    both = ("dvc.yaml:a - dvc.yaml:b", "dvc.yaml:b - dvc.yaml:a")  # DVC has them in a set
    assert any(f"specified in: - {names}" in line for line in lines for names in both)
    assert any("dvc.lock: " in line for line in lines)
    commits = project.git("log", "--format=%H").splitlines()
    assert all(any(c.startswith(line.split()[1].rstrip(":")) for c in commits) for line in lines)
    assert sorted(by("rate", project)) == ["0", "1"]


def test_metrics_of_another_commit(tmp_path: Path) -> None:
    """Metrics are read from whichever commit has their md5; files with others are reported."""
    project = history(tmp_path / "project", 1)
    right = (project.path / "metrics.json").read_text()
    project.git("reset", "-q", "--soft", "HEAD~1")
    project.write({"metrics.json": '{"score": 99}'})
    project.commit("The lock, with other metrics")
    said = project.record("--all")
    assert "metrics.json: not as in dvc.lock" in said.error
    (row,) = project.rows()
    assert "evaluate/score" not in row.data.metrics
    project.write({"metrics.json": right})
    project.commit("The right metrics, later")
    project.write({"metrics.json": '{"score": 98}'})
    project.commit("Other metrics again")
    said, first = project.record("--all"), project.git("rev-parse", "HEAD~2")[:7]
    other = "metrics.json: not as in dvc.lock; the row has dvc.lock's numbers"
    assert said.error == f"dvc-mlflow: {first}: {other}\n"
    (row,) = project.rows()
    assert row.data.metrics["evaluate/score"] == 0


def test_metrics_that_only_a_remote_has(tmp_path: Path) -> None:
    """Metrics that only DVC's remote has are reported as missing until `--fetch` gets them."""
    stages = {"train": train("raw.txt"), "a": evaluate("a", cache=True)}
    project = repository(tmp_path / "project", stages, {"rate": 1, "a": 3})
    project.dvc("remote", "add", "-q", "-d", "team", str(tmp_path / "remote"))
    project.dvc("repro", "-q")
    project.commit("A result")
    project.dvc("push", "-q")
    project.run("rm", "-r", ".dvc/cache", "a.json", "model.txt")
    said = project.record("--all")
    assert "a.json: not as in dvc.lock" in said.error
    (row,) = project.rows()
    assert "a/score" not in row.data.metrics
    assert not (project.path / ".dvc/cache/files").exists()
    assert project.record("--all", "--fetch").error == ""
    (row,) = project.rows()
    assert row.data.metrics["a/score"] == 3
    assert not (project.path / "a.json").exists()


def test_templates(tmp_path: Path) -> None:
    """A dvc.yaml with templates is read with the values of its own commit."""
    do = {"cmd": "run ${rate}", "metrics": [{"${item}.json": {"cache": False}}], "params": ["rate"]}
    stages = {"eval": {"foreach": "${models}", "do": do}}
    files = {"p.json": '{"score": 1}'}
    project = locked(tmp_path / "project", stages, {"rate": 1, "models": ["p"]}, files)
    project.commit("One")
    both = dict.fromkeys(["p.json", "q.json"], '{"score": 2}')
    project.again(both, {"rate": 2, "models": ["p", "q"]})
    project.commit("Two")
    found = [row for rev in ("HEAD^", "HEAD") for row in read(project, rev=rev).rows]
    assert {(row.tags["dvc.stage"], *row.metrics.values()) for row in found} == {
        ("eval@p", 1),
        ("eval@p", 2),
        ("eval@q", 2),
    }


def test_nested_project(tmp_path: Path) -> None:
    """A nested project has the history of its own files."""
    outer = history(tmp_path / "project", 3)
    stages, params = {"train": train("raw.txt")}, {"rate": 50}
    inner = locked(outer.path / "inner", stages, params, trained(50), git=False)
    inner.write({".dvc/config": ""})
    outer.commit("A nested project")
    outer.record("--all", folder="inner")
    (row,) = outer.rows()
    assert row.data.params == {"rate": "50"}
    assert row.data.tags["folder"] == "inner"


def test_no_refs(tmp_path: Path) -> None:
    """A detached HEAD is imported; of a repository without commits it is said that it has none."""
    project = history(tmp_path / "project", 2)
    project.git("switch", "-q", "--detach")
    project.git("branch", "-q", "-D", "main")
    project.record("--all")
    assert len(project.rows()) == 2
    empty = Repository(tmp_path / "empty")
    empty.path.mkdir()
    empty.git("init", "-q")
    empty.dvc("init", "-q")
    said = empty.record("--all")
    assert said.status == 0
    assert said.error.startswith("dvc-mlflow: 0 rows: no commit has a result")
    assert "no dvc.yaml has a stage" in said.error
