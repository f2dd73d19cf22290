"""Pipelines that declare no metrics, or some that no stage makes, and lines about what is missing.

DVCLive without a pipeline writes metrics, params and plots that no stage makes.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from dvc_mlflow.pipeline.tags import COMMIT, EXPERIMENT, MD5, STAGE, tagged
from support.locked import Locked, locked, row
from support.pipelines import Repository, Stages, evaluate, makes, prepare, train
from support.promoting import restore, restored

pytestmark = pytest.mark.pipeline


def test_last_stages(tmp_path: Path) -> None:
    """They have params, md5s and files; a line says once how to declare metrics, which helps."""
    score = {"cmd": "run", "deps": ["data.txt"], "params": ["rate"]}
    stages = {"prepare": prepare(), "train": {**score, "outs": ["out.json"]}}
    files = {"data.txt": "1\n", "out.json": '{"score": 3}'}
    project = locked(tmp_path / "project", stages, files=files)
    project.commit("The results")
    project.add_store()
    why = "declares no metrics, curves or models, so the last stages are recorded"
    errors = [project.record(*words).error for words in (["--dry-run"], [], [], ["--all"])]
    assert [why in error for error in errors] == [True, True, False, False]
    (found,) = project.rows()
    assert (found.data.params, found.data.metrics) == ({"rate": "1"}, {})
    assert found.data.tags[STAGE] == "train"
    assert {"data.txt", "out.json"} <= tagged(found.data.tags, MD5).keys()
    assert project.artifacts(found) == ["out.json"]
    stages["train"] = {**score, "metrics": ["out.json"]}
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    said = project.record()
    assert (said.error, "completed" in said.out) == ("", True)
    (found,) = project.rows()
    assert found.data.metrics == {"train/score": 3}


LIKELY = dict.fromkeys(("scores.json", "out/Model-Report.yml", "eval_1.yaml"), "f1: 1")
LIKELY["scores.json"] = '{"f1": 1}'
UNLIKELY = dict.fromkeys(["retrieval.json", "out.json"], '{"f1": 1}') | {"scores.csv": "f1\n1"}
UNLIKELY["report.json"] = f'{{"f1": 1, "text": "{64_000 * "x"}"}}'


def test_likely_metrics(tmp_path: Path) -> None:
    """Where no metrics are declared, a file whose name says that it has some counts as one.

    A line names them, and says how to declare them.
    """
    files = {"data.txt": "1\n", **LIKELY, **UNLIKELY, "results.json": '{"a": 1}'}
    one = {"cmd": "run", "deps": ["data.txt"]}
    stages: Stages = {
        "prepare": {"cmd": "run", "outs": ["data.txt", "results.json"]},
        **{f"{n}": {**one, "outs": [name]} for n, name in enumerate([*LIKELY, *UNLIKELY])},
    }
    project = locked(tmp_path / "project", stages, files=files)
    project.add_store()
    why = "dvc.yaml declares no metrics, so the numbers in .*scores.json.* count as such; list"
    assert re.search(f"{why} files of numbers under `metrics:`", project.record().error)
    found = {name: run.data.metrics for run in project.rows() for name in [run.data.tags[STAGE]]}
    likely = [{f"{n}/f1": 1} for n in range(len(LIKELY))]
    assert [found[f"{n}"] for n in range(len(found))] == [*likely, *[{}] * len(UNLIKELY)]


def test_why_there_are_no_rows(tmp_path: Path) -> None:
    """Zero rows is said as that, with what to do; doing it gives rows."""
    score = {"a.json": '{"score": 1}'}
    project = locked(tmp_path / "project", {"a": evaluate("a", "raw.txt")}, files=score)
    result = {**score, "dvc.lock": project.lock}
    for name in result:
        (project.path / name).unlink()
    project.write({"dvc.yaml": "{}"})
    project.commit("No stage")
    none = "dvc-mlflow: 0 rows: no commit has a result"
    said = project.record("--all")
    assert (said.status, said.error.startswith(none)) == (0, True)
    assert "no dvc.yaml has a stage" in said.error
    project.write({"dvc.yaml": json.dumps({"stages": {"a": evaluate("a", "raw.txt")}})})
    project.commit("No result")
    project.add_store()
    said = project.record("--all")
    none += " of a recorded stage in its dvc.lock"
    why = "stage a is not recorded: dvc.lock has no result of it"
    assert said.error.splitlines() == [none, f"dvc-mlflow: {why}; run `dvc repro`"]
    project.write(result)
    uncommitted = "the result in dvc.lock is not committed; `dvc-mlflow record` adds its row"
    assert uncommitted in project.record("--all").out
    assert "added" in project.record().out


def test_results_of_other_branches(tmp_path: Path) -> None:
    """From a commit without dvc.lock `record --all` reads them; without .dvc, it says which has."""
    score = {"a.json": '{"score": 1}'}
    project = locked(tmp_path / "project", {"a": evaluate("a", "raw.txt")}, files=score)
    project.commit("The result")
    has = project.git("rev-parse", "--short", "HEAD")
    project.git("branch", "-m", "without")
    project.git("branch", "main")
    project.git("rm", "-q", "dvc.lock", "dvc.yaml")
    project.commit("Nothing")
    project.add_store()
    assert "1 row added" in project.record("--all").out
    shutil.rmtree(project.path / ".dvc")
    project.commit("No project")
    said = project.record("--all")
    assert said.error.endswith(f"; commit {has} of refs/heads/main has results\n")
    project.git("checkout", "-q", has, "--", "dvc.lock")
    assert project.record().error.endswith("no .dvc, which `dvc init` makes\n")


AS_DVCLIVE: dict[str, Any] = {
    "params": ["dvclive/params.yaml"],
    "metrics": ["dvclive/metrics.json"],
    "plots": [{"dvclive/plots/metrics": {"x": "step"}}, "dvclive/plots/images"],
}


def live(project: Repository, rate: int) -> None:
    """Write what DVCLive writes."""
    project.write(
        {
            "dvclive/params.yaml": f"rate: {rate}\n",
            "dvclive/metrics.json": json.dumps({"loss": 1 / rate, "step": 2}),
            "dvclive/plots/metrics/loss.tsv": f"step\tloss\n0\t9\n2\t{1 / rate}\n",
            "dvclive/plots/images/seen.png": "no picture",
        }
    )


def notebook(path: Path) -> Locked:
    """Return a repository without any stage: two committed runs and an experiment."""
    made = locked(path, {})
    made.write({"dvc.yaml": json.dumps(AS_DVCLIVE)})
    made.add_store()
    live(made, 1)
    made.commit("First")
    made.write({"README.md": "Nothing of it has changed\n"})
    made.commit("A README")
    live(made, 2)
    made.commit("Second")
    head = made.git("rev-parse", "HEAD")
    live(made, 4)
    made.commit("Experiment")
    made.git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/wise-wolf", "HEAD")
    made.git("reset", "-q", "--hard", head)
    return made


def test_rows(tmp_path: Path) -> None:
    """Each distinct content is one row, under the oldest commit or the experiment that has it."""
    project = notebook(tmp_path / "project")
    said = project.record("--all")
    assert (said.error, said.out.partition("\n")[0]) == ("", "project: 3 rows added")
    first, second, third = sorted(project.rows(), key=lambda row: row.data.params["rate"])
    assert first.data.params == {"rate": "1"}
    assert first.data.metrics == {"loss": 1.0, "step": 2}
    assert first.data.tags[COMMIT] == project.git("rev-parse", "HEAD~2")
    curve = project.client.get_metric_history(first.info.run_id, "loss")
    assert [(point.step, point.value) for point in curve] == [(0, 9), (2, 1)]
    assert "dvclive/plots/images/seen.png" in project.artifacts(first)
    assert second.data.tags[COMMIT] == project.git("rev-parse", "HEAD")
    assert third.data.tags[EXPERIMENT] == "wise-wolf"
    assert project.record("--all").out.startswith("nothing to do")
    assert project.record().out.startswith("nothing to do: MLflow has this result")


def test_checkout(tmp_path: Path) -> None:
    """What nobody has committed is a row with a tree of its own, and a model that DVC tracks."""
    top = {**AS_DVCLIVE, "artifacts": {"mine": {"path": "model.bin", "type": "model"}}}
    files = {"model.bin": "weights\n"}
    project = locked(tmp_path / "project", {}, files=files, tracked=["model.bin"])
    project.write({"dvc.yaml": json.dumps(top)})
    project.add_store()
    project.commit("A model")
    live(project, 8)
    project.record()
    (found,) = project.rows()
    assert found.data.params == {"rate": "8"}
    assert f"{MD5}model.bin" in found.data.tags
    live(project, 16)
    folder = restored(project, found).path
    assert (folder / "dvclive/params.yaml").read_text() == "rate: 8\n"
    assert json.loads((folder / "dvclive/metrics.json").read_text())["loss"] == 1 / 8
    assert (folder / "model.bin").read_text() == "weights\n"


def test_beside_stages(tmp_path: Path) -> None:
    """What a stage writes but does not declare is in its row, which restores its outputs, too."""
    files = {"model.pkl": "model\n", "live/metrics.json": '{"acc": 0.9}'}
    stage = makes(files, deps=["raw.txt"], params=["rate"], outs=["model.pkl"])
    metrics = ["live/metrics.json", "no.json"]
    project = locked(tmp_path / "project", {"train": stage}, files=files, metrics=metrics)
    project.add_store()
    project.commit("Results")
    for words in (["--all"], []):
        said = project.record(*words)
        assert said.error == "dvc-mlflow: metrics: 'no.json' is not there, and no stage makes it\n"
    (found,) = project.rows()
    assert (found.data.params, found.data.metrics) == ({"rate": "1"}, {"acc": 0.9})
    assert (restored(project, found).path / "model.pkl").read_text() == "model\n"


def test_dvclive_2(tmp_path: Path) -> None:
    """What DVCLive declares in its own dvc.yaml is in the row of the stage that makes its metrics.

    A param of both is there once, by its own name, and the description has the stage's command.
    """
    metrics = [{"dvclive/metrics.json": {"cache": False}}]
    stage = {"cmd": "python train.py", "params": ["rate"], "metrics": metrics}
    of_its_own = {"params": ["own.yaml"], "metrics": ["metrics.json"], "plots": [{"plots": {}}]}
    files = {
        "dvclive/dvc.yaml": json.dumps(of_its_own),
        "dvclive/own.yaml": "rate: 1\nunits: 2\n",
        "dvclive/metrics.json": '{"loss": 3}',
        "dvclive/plots/loss.tsv": "step \t loss\n0\t9\n1\t3\n",
    }
    found = row(locked(tmp_path / "project", {"train": stage}, {"rate": 1}, files))
    assert {*found.digests} == {"train", "dvclive/dvc.yaml"}
    assert found.params == {"rate": "1", "units": "2"}
    assert (found.metrics["train/loss"], found.curves["loss"]) == (3, [(0, 9), (1, 3)])
    assert found.tags[STAGE] == "train"


def test_stages_without_result(tmp_path: Path) -> None:
    """What no stage makes has a row of its own while the last stages have no result.

    It can be restored, too, if there is no dvc.lock at all.
    """
    files, metrics = {"live/metrics.json": '{"acc": 0.9}', "data.txt": "1\n"}, ["live/metrics.json"]
    stages = {"prepare": prepare(), "train": train()}
    project = locked(tmp_path / "project", stages, files=files, only=["prepare"], metrics=metrics)
    found = row(project)
    assert [*found.digests] == ["dvc.yaml"]
    assert (found.metrics, f"{MD5}live/metrics.json" in found.tags) == ({"acc": 0.9}, True)
    (project.path / "dvc.lock").unlink()
    project.add_store()
    project.commit("A script alone")
    project.record("--all")
    (run,) = project.rows()
    assert restore(project, run).status == 0
