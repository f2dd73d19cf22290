"""`record --all` reads old, changed and broken files of DVC's, and names what it cannot read."""

import json
import shutil
from pathlib import Path

import pytest

from dvc_mlflow.pipeline.tags import STAGE
from support.histories import by, history, result
from support.locked import locked, trained
from support.pipelines import Repository, Stages, evaluate, makes, repository, train

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
]

SCORE = {"a.json": '{"score": 1}\n'}


def test_stages_of_before(tmp_path: Path) -> None:
    """Results from before the tool was adopted are recorded for the stages recorded today.

    Those from before a stage was renamed are recorded under its old name.
    """
    with_tool = train("raw.txt")
    with_tool["cmd"] = f"dvc-mlflow run -c {json.dumps(with_tool['cmd'])}"
    each = [("fit", train("raw.txt")), ("train", train("raw.txt")), ("train", with_tool)]
    project = locked(tmp_path / "project", {}, {"rate": 0})
    project.add_store()
    for rate, (name, stage) in enumerate(each):
        (project.path / "dvc.lock").unlink(missing_ok=True)
        declared = {"dvc.yaml": json.dumps({"stages": {name: stage}})}
        project.again({**declared, **trained(rate)}, {"rate": rate})
        project.commit(f"{rate}")
    project.record("--all")
    found = {rate: row.data.tags[STAGE] for rate, row in by("rate", project).items()}
    assert found == {"0": "fit", "1": "train", "2": "train"}


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


def test_keys_of_dvc_2(tmp_path: Path) -> None:
    """`live:` and `checkpoint:`, which DVC 3 refuses, hide no result."""
    project = locked(tmp_path / "project", {"a": evaluate("a", "raw.txt")}, files=SCORE)
    project.add_store()
    old = evaluate("a", "raw.txt")
    old |= {"live": {"dvclive": {"summary": True}}, "outs": [{"w.pt": {"checkpoint": True}}]}
    project.write({"dvc.yaml": json.dumps({"stages": {"a": old}})})
    md5 = "0cc175b9c0f1b6a831c399e269772661"
    more = f"    outs:\n    - path: w.pt\n      md5: {md5}\n      size: 1\n"
    assert "    outs:\n" in project.lock
    project.write({"dvc.lock": project.lock.replace("    outs:\n", more)})
    project.commit("Checkpoints")
    assert project.record("--all").error == ""
    (row,) = project.rows()
    assert row.data.metrics == {"a/score": 1}
    assert project.record("--all").out.startswith("nothing to do")


def test_tracked_later(tmp_path: Path) -> None:
    """A `.dvc` file that appears after a result makes no second row of it.

    One that git tracks though it ignores it is as in a checkout: DVC reads none. Whatever git
    ignores today, each row can be restored.
    """
    files, stages = {"data/raw.txt": "1\n", **SCORE}, {"a": evaluate("a", "data")}
    project = locked(tmp_path / "project", stages, files=files)
    project.add_store()
    project.commit("The result")
    project.record()
    project.git("rm", "-q", "--cached", "data/raw.txt")
    project.track("data/raw.txt")
    project.commit("Track the data")
    assert project.record("--all").out.startswith("nothing to do")
    project.write({".gitignore": "/mlflow.db*\n/mlartifacts/\ndata/\n"})
    project.again({"a.json": '{"score": 2}\n'}, {"a": 2})
    project.commit("Ignore the data")
    assert project.record("--all").out.startswith("project: 1 row added\n")
    assert project.record().out.startswith("nothing to do: MLflow has this result")
    first, second = project.rows()
    assert [row.data.metrics for row in (first, second)] == [{"a/score": 1}, {"a/score": 2}]
    project.remove_store()
    project.add_store()
    project.write({".gitignore": "/mlflow.db*\n/mlartifacts/\n"})
    project.commit("Ignore the data no longer")
    project.record("--all")
    for row in project.rows():
        said = project.tool("restore", row.info.run_id)
        assert (said.status, said.error) == (0, "")


def test_part_of_a_row(tmp_path: Path) -> None:
    """A result of which another commit has more is in the row of that, also in a dry run."""
    project = history(tmp_path / "project", 1)
    whole = json.loads(project.lock)
    part = {**whole, "stages": {"train": whole["stages"]["train"]}}
    project.write({"dvc.lock": json.dumps(part)})
    project.commit("Only the training")
    for options, line in ((["--dry-run"], "1 row would be added"), ([], "1 row added")):
        assert project.record("--all", *options).out.startswith(f"project: {line}\n")


def test_what_cannot_be_read(tmp_path: Path) -> None:
    """Commits that DVC cannot read cost one line for each reason; all others are recorded.

    So do numbers that are not of the data beside them: they are in no row. Lines that are alike are
    one, with the first commit and a count.
    """
    project = history(tmp_path / "project", 2)
    half, new = json.loads(project.lock), result(2)
    half["stages"]["train"] = json.loads(new["dvc.lock"])["stages"]["train"]
    project.write({"dvc.lock": json.dumps(half), "curve.csv": new["curve.csv"]})
    project.commit("Only a training")
    good = (project.path / "dvc.yaml").read_text()
    broken = {
        "not YAML": "stages: [",
        "vars": json.dumps({**json.loads(good), "vars": ["none.yaml"]}),
        "more vars": json.dumps({**json.loads(good), "vars": ["none.yaml", "none.json"]}),
        "params": json.dumps({**json.loads(good), "params": ["list.yaml"], "metrics": ["n.json"]}),
        "key": json.dumps({"stages": {"train": {"cmd": "${nothing}"}}}),
        "outs": json.dumps({"stages": {name: {"cmd": "x", "outs": ["x"]} for name in "ab"}}),
    }
    project.write({"list.yaml": "[1, 2]\n", "n.json": '{"n": 2}'})
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
    assert len(lines) == 8
    why = "it has read a different model.txt than train has written"
    assert any(f": stage evaluate is not recorded: {why}" in line for line in lines)
    assert any("dvc.lock: the entry of train cannot be read" in line for line in lines)
    assert any(" and 1 more: " in line and "none.yaml" in line for line in lines)
    assert any("params list.yaml: must be a mapping; received [1, 2]" in line for line in lines)
    both = ("dvc.yaml:a - dvc.yaml:b", "dvc.yaml:b - dvc.yaml:a")  # DVC has them in a set
    assert any(f"specified in: - {names}" in line for line in lines for names in both)
    commits = project.git("log", "--format=%H").splitlines()
    assert all(any(c.startswith(line.split()[1].rstrip(":")) for c in commits) for line in lines)
    rows = by("rate", project).items()
    scores = {rate: row.data.metrics.get("evaluate/score") for rate, row in rows}
    assert scores == {"0": 0, "1": 0.001, "2": None}


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
    assert said.error == f"dvc-mlflow: {first} and 1 more: {other}\n"
    (row,) = project.rows()
    assert row.data.metrics["evaluate/score"] == 0
    assert project.record().error == f"dvc-mlflow: {other}\n"


def fresh(project: Repository, path: Path) -> Repository:
    """Return a copy that has no output, and nothing in DVC's cache."""
    clone = project.copy(path)
    for folder in (".dvc/cache", "eval"):
        shutil.rmtree(clone.path / folder)
    (clone.path / "a.json").unlink()
    return clone


def test_what_only_a_remote_has(tmp_path: Path) -> None:
    """`--fetch` gets the files that a row shows, also those of a folder, and no others.

    Until then they are reported as missing, and only they are looked for. What a remote lacks is
    named; of one that does not answer, nothing says that it lacks a file.
    """
    stages: Stages = {"a": evaluate("a", "raw.txt", cache=True)}
    stages["eval"] = makes({"eval/n.json": '{"n": 3}', "b": '{"m": 12}'}, outs=["eval", "b"])
    stages["eval"]["cmd"] += "; head -c 2000000 /dev/zero > eval/big.bin"
    project = repository(tmp_path / "project", stages, metrics=["eval/n.json", "b"])
    project.dvc("remote", "add", "-q", "-d", "there", str(tmp_path / "remote"))
    project.dvc("repro", "-q")
    project.commit("The result")
    project.dvc("push", "-q")
    clone = fresh(project, tmp_path / "clone")
    missing = "not as in dvc.lock; `--fetch` looks in DVC's remote (and 1 more: a.json)\n"
    assert clone.record("--all").error.endswith(f": eval, b: {missing}")
    assert not (clone.path / ".dvc/cache/files").exists()
    assert [row.data.metrics for row in clone.rows()] == [{}, {}]
    said = clone.record("--all")
    assert said.out == "nothing to do: MLflow has all results that can be read\n"
    assert said.error.endswith(("(and 2 more: b, a.json)\n", "(and 2 more: eval, b)\n"))
    said = clone.record("--all", "--fetch")
    assert (said.error, said.out.partition("\n")[0]) == ("", "clone: 2 rows completed")
    metrics = [row.data.metrics for row in clone.rows()]
    assert sorted(metrics, key=str) == [{"a/score": 1}, {"eval/n/n": 3, "eval/b/m": 12}]
    kept = [file for file in (clone.path / ".dvc/cache").rglob("*") if file.is_file()]
    assert max(file.stat().st_size for file in kept) < 1000
    assert not (clone.path / "a.json").exists()
    for oid in (tmp_path / "remote").rglob("*"):
        if oid.is_file() and oid.stat().st_size == len('{"n": 3}'):
            oid.unlink()
    said = fresh(project, tmp_path / "again").record("--all", "--fetch")
    assert "eval cannot be fetched: it did not come from the DVC remote 'there'" in said.error
    assert "a.json" not in said.error
    clone = fresh(project, tmp_path / "away")
    clone.dvc("remote", "modify", "there", "url", "https://127.0.0.1:9/x")
    said = clone.record("--all", "--fetch")
    assert "a.json cannot be fetched: it did not come from the DVC remote 'there'" in said.error
    assert "eval, b: not as in dvc.lock" in said.error
