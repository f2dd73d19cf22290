"""`record --all`: every result that git's history has, with DVC's own files of any age."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from clone import Clone, environment
from histories import FIRST, STAGES, history, result
from pipelines import TWO_EVALUATIONS, Repository, evaluate, repository, train
from servers import serving

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # what MLflow warns of in the test's process
]

NOTHING = "nothing to do: MLflow has all results that can be read\n"


def by(key: str, project: Repository) -> dict[str, Run]:
    """Return the rows by a param, which no two share."""
    rows = {row.data.params.get(key, ""): row for row in project.rows()}
    assert len(rows) == len(project.rows())
    return rows


def state_of(project: Repository) -> list[str]:
    """Return what git knows of the checkout, and every ref."""
    return [project.git("status", "--porcelain"), project.git("for-each-ref"), project.git("stash")]


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A history of thirty results, all recorded."""
    made = history(tmp_path_factory.mktemp("long") / "project", 30)
    made.git("tag", "v1", "HEAD~20")
    (made.path / "README.md").write_text("More\n")
    made.commit("Add a README")
    made.git("tag", "-a", "v2", "-m", "Second")
    before = state_of(made)
    said = made.record("--all")
    assert (said.status, said.error) == (0, "")
    assert said.out.startswith("project: 30 rows added\nall rows: http://")
    assert state_of(made) == before
    return made


def test_each_result_is_a_row(long: Repository) -> None:
    """A row has the params, metrics and curve of its commit, and says where it comes from."""
    rows = by("rate", long)
    assert len(rows) == 30
    row = rows["9"]
    assert row.data.params == {"rate": "9", "threshold": "0"}
    assert row.data.metrics["evaluate/score"] == 0.009
    points = long.client.get_metric_history(row.info.run_id, "train/loss")
    assert [(p.step, p.value) for p in points] == [(step, 1 / (step + 9)) for step in range(1, 21)]
    commit = long.git("log", "--format=%H", "--grep=^Result 9$")
    tags = row.data.tags
    assert tags["mlflow.source.git.commit"] == tags["kept.train"] == commit
    assert tags["tree.train"] == long.git("rev-parse", f"{commit}^{{tree}}")
    assert (tags["mlflow.user"], tags["mlflow.source.git.branch"]) == ("A. Uthor", "main")
    assert row.info.start_time == row.info.end_time == 1000 * (FIRST + 60 * 9)
    assert row.info.status == "FINISHED"
    assert tags["git.names"] == "v1"
    # The README was added after the result.
    assert rows["29"].data.tags["git.names"] == "main, v2"
    assert "git.names" not in rows["12"].data.tags


def test_nothing_is_recorded_twice(long: Repository) -> None:
    """A second import does nothing, nor does `record` of a commit or of the workspace."""
    assert long.record("--all").out == NOTHING
    assert long.record("--rev", "v1..v2").out == NOTHING
    assert long.record("--rev", "v1").out == "nothing to do: MLflow has this result\n"
    assert long.record().out == "nothing to do: MLflow has this result\n"
    assert len(long.rows()) == 30


def test_part_of_history(tmp_path: Path) -> None:
    """A range records what its commits have, and `--dry-run` only says how much that is."""
    project = history(tmp_path / "project", 10)
    assert "10 rows would be added" in project.record("--all", "--dry-run").out
    assert not (project.path / "mlflow.db").exists()
    project.record("--rev", "HEAD~5..HEAD~2")
    assert sorted(by("rate", project)) == ["5", "6", "7"]
    said = project.record("--rev", "HEAD~99..HEAD")
    assert said.status == 1
    assert "HEAD~99" in said.error
    project.record("--all")
    assert len(by("rate", project)) == 10


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline that was recorded live: in commits, on a branch, and as an experiment."""
    path = tmp_path_factory.mktemp("lived") / "project"
    stages = {name: {**stage} for name, stage in TWO_EVALUATIONS.items()}
    for name in ("train", "a", "b"):
        stages[name]["cmd"] = f"dvc-mlflow run -c {json.dumps(stages[name]['cmd'])}"
    made = repository(path, stages)
    for i, params in enumerate([{}, {"rate": 2}, {"a": 5}, {"rate": 1, "a": 1}, {"b": 7}]):
        made.git("switch", "-q", "-C", "side" if i == 1 else "main", "HEAD")
        made.set(params)
        made.dvc("repro", "-q")
        made.commit(f"Result {i}")
    made.dvc("exp", "run", "-q", "-n", "wide", "-S", "rate=9")
    made.git("checkout", "-q", ".")
    made.dvc("exp", "run", "-q", "--temp", "-n", "temporary", "-S", "rate=10")
    made.set({"rate": 11})
    made.dvc("repro", "-q")  # which nobody commits
    made.git("checkout", "-q", ".")
    made.dvc("checkout", "-q")
    return made


def test_what_was_recorded_live(lived: Repository) -> None:
    """What was recorded live is not made twice."""
    table = lived.table()
    assert len(table) == 7
    assert lived.record("--all").out == NOTHING
    assert lived.table() == table


def test_the_store_is_a_view(lived: Repository, tmp_path: Path) -> None:
    """If the store is lost, `record --all` makes the same table, also of what nobody committed."""
    copy = lived.copy(tmp_path / "project")
    said = copy.record("--all")
    assert (said.status, said.error) == (0, "")
    assert copy.table() == lived.table()
    names = {r.data.tags.get("dvc.exp_name") for r in copy.rows()}
    assert {"wide", "temporary"} <= names
    (uncommitted,) = [r for r in copy.rows() if r.data.params["rate"] == "11"]
    assert uncommitted.data.tags["mlflow.source.git.dirty"] == "true"
    assert uncommitted.data.tags["mlflow.source.git.commit"] == copy.git("rev-parse", "HEAD")
    copy.run("dvc-mlflow", "restore", uncommitted.info.run_id)
    params = next((copy.path / "restored").glob("*/params.yaml"))
    assert "rate: 11" in params.read_text()


def test_experiments_only(lived: Repository, tmp_path: Path) -> None:
    """`--experiments` records DVC's experiments, and no commit of a branch."""
    copy = lived.copy(tmp_path / "project")
    copy.record("--experiments")
    assert {row.data.tags["dvc.exp_name"] for row in copy.rows()} == {"wide", "temporary"}


def test_as_dvc_shows_it(lived: Repository, tmp_path: Path) -> None:
    """Params and metrics are those of `dvc exp show --all-commits`."""
    copy = lived.copy(tmp_path / "project")
    copy.record("--all")
    rows = {row.data.tags["kept.train"]: row for row in copy.rows()}
    shown = json.loads(copy.dvc("exp", "show", "--all-commits", "--json").stdout)
    compared = 0
    for entry in shown:
        if (row := rows.get(entry["rev"])) and (data := entry.get("data")):
            params = data["params"]["params.yaml"]["data"]
            assert row.data.params == {key: str(value) for key, value in params.items()}
            for file, found in data["metrics"].items():
                for key, value in found["data"].items():
                    assert row.data.metrics[f"{Path(file).stem}/{key}"] == value
            compared += 1
    assert compared >= 4


def test_stages_are_those_of_today(tmp_path: Path) -> None:
    """A pipeline that takes the tool over has rows of what it records today, and has had before."""
    project = repository(tmp_path / "project", TWO_EVALUATIONS)
    project.dvc("repro", "-q")
    project.commit("Without the tool")
    stages = {name: {**stage} for name, stage in TWO_EVALUATIONS.items()}
    for name in ("train", "a"):
        stages[name]["cmd"] = f"dvc-mlflow run -c {json.dumps(stages[name]['cmd'])}"
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    project.set({"rate": 2})
    project.dvc("repro", "-q")
    project.commit("With the tool")
    project.record("--all")
    for row in project.rows():
        assert {"a/score"} == {key for key in row.data.metrics if key.endswith("score")}
    assert sorted(by("rate", project)) == ["1", "2"]
    project.record("--all", "--stages", "train,b")
    assert len(project.rows()) == 4


def test_renamed_stage(tmp_path: Path) -> None:
    """Results of a stage that had another name are rows, by what is recorded by default."""
    project = repository(tmp_path / "project", {"fit": train("raw.txt")}, {"rate": 1})
    project.dvc("repro", "-q")
    project.commit("Before")
    cmd = f"dvc-mlflow run -c {json.dumps(train('raw.txt')['cmd'])}"
    project.write({"dvc.yaml": json.dumps({"stages": {"train": {**train("raw.txt"), "cmd": cmd}}})})
    project.dvc("repro", "-q")
    project.commit("After")
    project.record("--all")
    assert {row.data.tags["dvc.stage"] for row in project.rows()} == {"fit", "train"}


def test_old_lock(tmp_path: Path) -> None:
    """A lock from before DVC 2.0, which DVC itself refuses, is read."""
    project = history(tmp_path / "project", 2)
    locks = [json.loads(project.git("show", f"{c}:dvc.lock")) for c in ("HEAD~1", "HEAD")]
    project.git("switch", "-q", "--orphan", "old")
    project.git("branch", "-q", "-D", "main")
    project.write({"dvc.yaml": json.dumps({"stages": STAGES}), ".gitignore": "/mlflow.db*\n"})
    for i, lock in enumerate(locks):
        project.write(result(i))
        for entry in lock["stages"].values():
            for item in entry["deps"] + entry["outs"]:
                del item["hash"]
        project.write({"dvc.lock": json.dumps(lock["stages"])})
        project.commit("As DVC 1.0 wrote it")
    said = project.record("--all")
    assert (said.status, said.error) == (0, "")
    rows = by("rate", project)
    assert rows["1"].data.metrics["evaluate/score"] == 0.001


def test_single_stage_file(tmp_path: Path) -> None:
    """A `.dvc` file with a command is a stage."""
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


def test_what_cannot_be_read(tmp_path: Path) -> None:
    """Commits that DVC cannot read cost one line for each reason; all others are recorded."""
    project = history(tmp_path / "project", 2)
    good = (project.path / "dvc.yaml").read_text()
    broken = {
        "not YAML": "stages: [",
        "vars": json.dumps({**json.loads(good), "vars": ["none.yaml"]}),
        "key": json.dumps({"stages": {"train": {"cmd": "${nothing}"}}}),
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
    assert len(lines) == 4
    assert any("none.yaml" in line for line in lines)
    assert any("dvc.lock: " in line for line in lines)
    commits = project.git("log", "--format=%H").splitlines()
    assert all(any(c.startswith(line.split()[1].rstrip(":")) for c in commits) for line in lines)
    assert sorted(by("rate", project)) == ["0", "1"]


def test_metrics_of_another_commit(tmp_path: Path) -> None:
    """A metrics file is taken from where git has its md5; another file is refused and named."""
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
    assert project.record("--all").error == ""
    (row,) = project.rows()
    assert row.data.metrics["evaluate/score"] == 0


def test_metrics_that_only_a_remote_has(tmp_path: Path) -> None:
    """What only DVC's remote has is missing, and named, until `--fetch`."""
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
    stage = {
        "foreach": "${models}",
        "do": {
            "cmd": 'echo "{\\"score\\": ${rate}}" > ${item}.json',
            "metrics": [{"${item}.json": {"cache": False}}],
            "params": ["rate"],
        },
    }
    project = repository(tmp_path / "project", {"eval": stage}, {"rate": 1, "models": ["p"]})
    for params in ({}, {"rate": 2, "models": ["p", "q"]}):
        project.set(params)
        project.dvc("repro", "-q")
        project.commit(f"{params}")
    project.record("--all")
    found = {(r.data.tags["dvc.stage"], *r.data.metrics.values()) for r in project.rows()}
    assert found == {("eval@p", 1), ("eval@p", 2), ("eval@q", 2)}


def test_killed_at_any_time(tmp_path: Path) -> None:
    """An import that is killed again and again ends with each result once, and complete."""
    project = history(tmp_path / "project", 40)
    command = [sys.executable, "-P", "-m", "dvc_mlflow", "record", "--all"]
    for i in range(6):
        process = subprocess.Popen(command, cwd=project.path, env=environment())
        time.sleep(2.2 + 0.35 * i)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert project.run(*command).returncode == 0
    rows = by("rate", project)
    assert len(rows) == 40
    for rate, row in rows.items():
        assert row.info.status == "FINISHED"
        assert {"lock.train", "lock.evaluate"} <= row.data.tags.keys()
        assert row.data.metrics["evaluate/score"] == int(rate) / 1000
        assert len(project.client.get_metric_history(row.info.run_id, "train/loss")) == 20


def test_two_at_once(tmp_path: Path) -> None:
    """Two imports at once double no row."""
    project = history(tmp_path / "project", 40)
    command = [sys.executable, "-P", "-m", "dvc_mlflow", "record", "--all"]
    running = [subprocess.Popen(command, cwd=project.path, env=environment()) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    assert len(by("rate", project)) == 40


def test_into_a_server(tmp_path: Path) -> None:
    """A server gets several rows at once: each whole, and once, also from two imports."""
    project = history(tmp_path / "project", 40)
    command = [sys.executable, "-P", "-m", "dvc_mlflow", "record", "--all"]
    with serving(Clone(tmp_path), "server") as address:
        more = environment(MLFLOW_TRACKING_URI=address)
        with subprocess.Popen(command, cwd=project.path, env=more) as killed:
            time.sleep(4)
            killed.kill()
        both = [subprocess.Popen(command, cwd=project.path, env=more) for _ in range(2)]
        assert [process.wait() for process in both] == [0, 0]
        client = MlflowClient(address)
        rows = client.search_runs([e.experiment_id for e in client.search_experiments()])
        assert sorted(int(row.data.params["rate"]) for row in rows) == [*range(40)]
        for row in rows:
            score = int(row.data.params["rate"]) / 1000
            assert (row.info.status, row.data.metrics["evaluate/score"]) == ("FINISHED", score)
            assert {"lock.train", "lock.evaluate"} <= row.data.tags.keys()
            assert len(client.get_metric_history(row.info.run_id, "train/loss")) == 20


def test_nothing_new_is_known_without_a_look(tmp_path: Path) -> None:
    """An import that had nothing to do reads no commit again, until anything has changed."""
    project = history(tmp_path / "project", 3)
    complete = project.path / ".dvc" / "tmp" / "dvc-mlflow-complete"
    assert "3 rows would be added" in project.record("--all", "--dry-run").out
    assert not complete.exists()
    project.record("--all")
    first = complete.read_text()
    assert project.record("--all").out == NOTHING
    assert complete.read_text() == first
    (row, *_) = project.rows()
    project.client.delete_run(row.info.run_id)
    assert "1 row restored" in project.record("--all", "--deleted").out
    project.git("tag", "extra")
    project.run("rm", "mlflow.db")
    assert "3 rows added" in project.run("dvc-mlflow", "record", "--all").stdout


def test_nested_project(tmp_path: Path) -> None:
    """A project in a folder has the history of its own files."""
    outer = history(tmp_path / "project", 3)
    inner = Repository(outer.path / "inner")
    inner.path.mkdir()
    inner.dvc("init", "-q", "--subdir")
    params: dict[str, Any] = {"rate": 50}
    inner.write({"dvc.yaml": json.dumps({"stages": {"train": train("raw.txt")}})})
    inner.write({"raw.txt": "1\n", "params.yaml": f"rate: {params['rate']}\n"})
    inner.dvc("repro", "-q")
    outer.commit("A nested project")
    outer.record("--all", folder="inner")
    (row,) = outer.rows()
    assert row.data.params == {"rate": "50"}
    assert row.data.tags["folder"] == "inner"


def test_no_refs(tmp_path: Path) -> None:
    """A detached HEAD counts, as does a repository without a commit, in which nothing is."""
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
    assert (said.status, said.error) == (0, "")
