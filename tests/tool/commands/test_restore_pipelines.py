"""Every row has a way back, whatever the pipeline and in whatever order its stages ran."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from support.pipelines import (
    PARAMS,
    TWO_EVALUATIONS,
    Repository,
    evaluate,
    finished,
    last,
    makes,
    prepare,
    repository,
    reproduce,
    train,
)
from support.restoring import check_md5s, folder_of, only_folder, restore, restored

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

CODE = {"code.sh": "cat raw.txt\n"}


def hashed(content: bytes) -> str:
    """Return the md5 of bytes."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def scripted(stages: dict[str, Any]) -> dict[str, Any]:
    """Return stages whose first one runs a script that a dep names."""
    name, first = next(iter(stages.items()))
    own = {"cmd": "sh code.sh > data.txt", "deps": ["raw.txt", "code.sh"], "outs": ["data.txt"]}
    return {**stages, name: {**first, **own}}


def item(each: str) -> dict[str, Any]:
    """Return the stage of an item: it makes a model and a score of its own."""
    return {
        "cmd": f"mkdir -p {each}; cat data.txt > {each}/model.txt; "
        f"""echo "{{\\"score\\": $(sed -n 's/^rate: //p' params.yaml)}}" > {each}/score.json""",
        "deps": ["data.txt"],
        "params": ["rate"],
        "outs": [f"{each}/model.txt"],
        "metrics": [{f"{each}/score.json": {"cache": False}}],
    }


COMPARISON = {
    "cmd": 'cat one/score.json two/score.json > both.txt; echo "{\\"n\\": 2}" > compared.json',
    "deps": ["one/score.json", "two/score.json"],
    "outs": ["both.txt"],
    "metrics": [{"compared.json": {"cache": False}}],
}
FOREACH: dict[str, Any] = {"foreach": ["one", "two"], "do": item("${item}")}
MATRIX: dict[str, Any] = {
    "matrix": {"size": ["one", "two"], "kind": ["a", "b"]},
    **item("${item.size}/${item.kind}"),
}
SHAPES: dict[str, dict[str, Any]] = {
    "siblings": scripted(TWO_EVALUATIONS),
    "foreach": {"prepare": prepare(), "fit": FOREACH, "compare": COMPARISON},
    "matrix": {"prepare": prepare(), "fit": MATRIX},
}
ACTIONS = [
    "repro",
    "live",
    "a",
    "b",
    "train",
    "fit",
    "rate",
    "a=",
    "b=",
    "code",
    "record",
    "commit",
]
ACTIONS += ["stages"]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline of two siblings that has run and is committed but for dvc.lock: copy it."""
    folder = tmp_path_factory.mktemp("made")
    project = repository(folder / "project", SHAPES["siblings"], files=CODE)
    project.dvc("repro", "-q")
    return project


@pytest.fixture
def project(made: Repository, tmp_path: Path) -> Repository:
    """A copy of that pipeline."""
    return made.copy(tmp_path / "project")


def act(project: Repository, action: str, n: int) -> None:
    """Do something to a pipeline, as its user might; `n` is another number each time."""
    if action == "repro":
        project.dvc("repro", "-q")
    elif action == "live":
        project.run("dvc-mlflow", "run", "dvc", "repro", "-q")
    elif action in ("a", "b", "train", "fit"):
        project.dvc("repro", "-q", action, check=False)  # not every pipeline has it
    elif action in ("rate", "a=", "b="):
        project.set({action.rstrip("="): n})
    elif action == "code":
        project.write({"code.sh": f"cat raw.txt # {n}\n"})
    elif action == "record":
        project.record()
    elif action == "stages":
        project.choose("prepare")
    else:
        project.commit()


def check(project: Repository) -> None:
    """Restore every row, and compare it with what its tags, and dvc.lock, say."""
    for run in project.rows():
        said = restore(project, run)
        assert (said.status, said.error) == (0, ""), said
        folder = folder_of(project, said)
        check_md5s(folder.path, run)
        # The other items of a foreach are other rows' results, and inputs can have changed since.
        status = folder.dvc("status", run.data.tags["dvc.stage"]).stdout
        assert "up to date" in status or "dvc-mlflow.lacks" in run.data.tags, status
        assert "changed outs" not in status


@pytest.mark.rest
@settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # shrinking would take many minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    shape=st.sampled_from(sorted(SHAPES)),
    actions=st.lists(st.sampled_from(ACTIONS), min_size=2, max_size=6),
)
def test_any_order(
    shape: str, actions: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Rows of any pipeline, after any order of runs, edits and commits, can be restored."""
    project = repository(
        tmp_path_factory.mktemp("any") / "project", SHAPES[shape], PARAMS, files=CODE
    )
    for n, action in enumerate(["repro", *actions, "record"], 2):
        act(project, action, n)
    check(project)


def test_code_that_a_later_commit_adds(tmp_path: Path) -> None:
    """A script that was committed after its result is restored with it."""
    stage = {"cmd": "sh src/code.sh", "deps": ["src/code.sh"], "outs": ["data.txt"]}
    project = repository(tmp_path / "project", {"prepare": stage})
    project.write({"src/code.sh": "echo 1 > data.txt\n"})
    project.dvc("repro", "-q")
    project.git("add", "dvc.lock")
    project.git("commit", "-q", "-m", "Without the code")
    project.commit("With the code")
    project.record("--all")
    (row,) = project.rows()
    folder = restored(project, row)
    assert (folder.path / "src" / "code.sh").read_text() == "echo 1 > data.txt\n"


@pytest.mark.parametrize("is_old", [False, True])
def test_data_that_git_has_had(tmp_path: Path, is_old: bool) -> None:
    """Files that DVC keeps are taken from another commit that has them, if its cache does not.

    A row shows metrics from there, too. A lock of DVC 2 has md5s whatever the line endings.
    """
    stage = makes({"data.txt": "1\r\n", "m.json": '{"score": 1}\r\n'}, deps=["raw.txt"])
    stages = {"fit": {**stage, "outs": ["data.txt"], "metrics": ["m.json"]}}
    project = finished(tmp_path / "project", stages, data=["raw.txt"])
    project.git("add", "-f", "raw.txt", "data.txt", "m.json")
    project.commit("As git had them")
    if is_old:
        lock = re.sub(r"\n *hash: md5", "", (project.path / "dvc.lock").read_text())
        for raw in ((project.path / file).read_bytes() for file in ("data.txt", "m.json")):
            lock = lock.replace(hashed(raw), hashed(raw.replace(b"\r", b"")))
        project.write({"dvc.lock": lock})
    project.git("rm", "-q", "--cached", "raw.txt", "data.txt", "m.json")
    project.commit("As DVC keeps them")
    for path in ("raw.txt", "data.txt", "m.json", ".dvc/cache"):
        project.run("rm", "-r", path)
    said = project.record("--all")
    assert (said.error, said.status) == ("", 0)
    row = project.rows()[-1]
    assert row.data.metrics == {"fit/score": 1}
    said = restore(project, row)
    assert (said.error, said.status) == ("", 0)
    folder = folder_of(project, said).path
    assert (folder / "data.txt").read_bytes() == b"1\r\n"
    assert (folder / "raw.txt").read_text() == "1\n"


def test_siblings(project: Repository) -> None:
    """A row with two evaluations is restored, whichever of them ran last."""
    project.record()  # DVC has run a, then b
    project.set({"a": 2, "b": 2})
    for name in "ba":
        reproduce(project, {}, name)
    assert len(project.rows()) == 3  # between the two, dvc.lock has one old evaluation
    check(project)


def test_untracked_code(tmp_path: Path) -> None:
    """Untracked scripts are kept, as code may import them, but for what git ignores."""
    stage = {**train("raw.txt"), "deps": ["raw.txt", "src/train.sh"]}
    stage["cmd"] = f"sh src/train.sh; {stage['cmd']}"
    project = repository(tmp_path / "project", {"train": stage})
    project.write({"src/train.sh": ". lib/extra.sh\n", ".gitignore": "/mlflow.db*\n/secret.py\n"})
    project.commit()
    others = ["src/.env", "notes.txt", "secret.py", "venv/site-packages/x.py", "large.py"]
    project.write(dict.fromkeys(others, "PASSWORD=x\n"))
    project.write({"lib/extra.sh": "true\n", "conf/a.yaml": "a: 1\n"})
    project.write({"large.py": "#" * 1_000_001})
    project.dvc("repro", "-q")
    left = "large.py: it is larger than 1,000,000 bytes"
    assert project.record().error == f"dvc-mlflow: not kept for `dvc-mlflow restore`: {left}\n"
    run = last(project)
    assert run.data.tags["dvc-mlflow.lacks"] == left
    folder = restored(project, run)
    assert (folder.path / "lib/extra.sh").exists()
    assert (folder.path / "conf/a.yaml").exists()
    assert not [name for name in others if (folder.path / name).exists()]


def test_one_commit_for_one_state(tmp_path: Path) -> None:
    """All rows of one dvc.lock are kept by one commit, with what DVC leaves to git of each.

    While DVC runs stages, each row has a commit of its own, as others can be half-way.
    """
    stages = {"prepare": prepare(), "fit": FOREACH}
    project = repository(tmp_path / "project", stages)
    reproduce(project)
    first, second = project.rows()
    assert project.git("for-each-ref", "refs/rows").count("\n") == 0
    assert first.data.tags["dvc-mlflow.kept"] == second.data.tags["dvc-mlflow.kept"]
    for run in (first, second):
        said = restore(project, run)
        assert (said.status, said.error) == (0, ""), said
        check_md5s(folder_of(project, said).path, run)
    project.set({"rate": 2})
    project.dvc("repro", "-q")
    project.write({".dvc/tmp/rwlock": '{"write": {"two": {"pid": 1, "cmd": "dvc repro"}}}'})
    project.record()
    kept = [row.data.tags["dvc-mlflow.kept"] for row in project.rows()[2:]]
    subjects = project.git("log", "--no-walk", "--format=%s", *kept)
    assert {*subjects.splitlines()} == {"fit@one", "fit@two"}
    copied = project.copy(tmp_path / "copied")
    copied.record("--all")
    assert copied.table() == project.table()


def test_chosen_stages(project: Repository) -> None:
    """A row is restored, though dvc.yaml records other stages since."""
    project.choose("prepare", "train")
    project.commit()
    project.record()
    run = last(project)
    project.write({"dvc.yaml": json.dumps({"stages": {"b": evaluate("b", "raw.txt")}})})
    project.commit()
    restored(project, run)


def test_above_the_project(tmp_path: Path) -> None:
    """`dvc` above a restored nested project does not find the project around restored/."""
    project = repository(tmp_path / "project", {}, files={"inner/raw.txt": "1\n"})
    project.git("rm", "-rq", ".dvc", "dvc.yaml")
    shutil.rmtree(project.path / ".dvc")
    nested = Repository(project.path / "inner")
    nested.dvc("init", "-q", "--subdir")
    stages = {"stages": {"train": train("raw.txt")}}
    ignored = {".gitignore": "/mlflow.db*\n/mlartifacts/\n"}
    nested.write({"dvc.yaml": json.dumps(stages), "params.yaml": "rate: 1\n", **ignored})
    nested.add_store()
    project.commit("A nested project")
    reproduce(nested)
    said = restore(nested, last(nested))
    assert (said.status, said.error) == (0, ""), said
    place = folder_of(nested, said).path
    nested.set({"rate": 2})
    before = (nested.path / "dvc.lock").read_text()
    for folder in (place.parent, place.parent.parent):
        Repository(folder).dvc("repro", "-q", check=False)
        Repository(folder).dvc("checkout", "-q", check=False)
    assert (nested.path / "dvc.lock").read_text() == before
    assert "up to date" in Repository(place).dvc("status").stdout


REMOTES = [
    {"gdrive://folder": "dvc-gdrive", "../nowhere": ""},
    pytest.param({"http://127.0.0.1:9/": ""}, marks=pytest.mark.rest),
]
"""Remotes that cannot be used, and why, if DVC raises it."""


@pytest.mark.parametrize("remotes", REMOTES, ids=["here", "server"])
def test_as_far_as_it_goes(tmp_path: Path, remotes: dict[str, str]) -> None:
    """A row whose remote cannot be used is restored but for what only the remote has."""
    stages = {"train": train("raw.txt"), "a": evaluate("a", cache=True)}
    stages["train"]["cmd"] += "; head -c 2000000 /dev/zero > big"
    stages["train"]["outs"] = ["model.txt", "big"]
    project = repository(tmp_path / "project", stages)
    project.dvc("repro", "-q")
    project.commit()
    cache = project.path / ".dvc/cache/files/md5"
    for name in ("big", "a.json"):
        md5 = project.lock.split(f"path: {name}\n")[1].split("md5: ")[1].split("\n")[0]
        (cache / md5[:2] / md5[2:]).unlink()
        (project.path / name).unlink()
    assert project.record("--all").status == 0
    (run,) = project.rows()
    assert run.data.tags["dvc-mlflow.unread"] == "a.json"
    for remote, reason in remotes.items():
        project.dvc("remote", "add", "-q", "-f", "-d", "store", remote)
        said = restore(project, run)
        assert said.status == 1
        first, second = said.error.splitlines()
        assert ": big (md5 " in first
        assert "and it did not come from the DVC remote 'store'" in first
        assert reason in first
        assert ": a.json (md5 " in second
        assert second.endswith(" is missing: as above")
        folder = only_folder(project)
        assert (folder / "model.txt").exists()
        assert (folder / "curve.csv").exists()


def test_changed_since(project: Repository) -> None:
    """A result whose code was edited before it was recorded is restored with what is there now."""
    project.write({"code.sh": "cat raw.txt # edited\n"})
    said = project.record()
    assert "what prepare ran with: code or inputs have changed since" in said.error
    said = restore(project, last(project))
    assert (said.status, said.error) == (0, "")
    folder = folder_of(project, said)
    assert (folder.path / "code.sh").read_text() == "cat raw.txt # edited\n"


def test_later_dvc_yaml(project: Repository) -> None:
    """A committed result is restored if dvc.yaml has become another since, so that it differs."""
    project.commit()
    file = project.path / "dvc.yaml"
    stages = json.loads(file.read_text())["stages"]
    stages["b"]["deps"] = ["model.txt", "data.txt"]  # a new edge: DVC has not run it so
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    project.choose("train", "b")
    project.record()
    said = restore(project, last(project))
    assert said.status == 0, said


@pytest.mark.rest
def test_several_dvc_yaml(tmp_path: Path) -> None:
    """A row of stages in two dvc.yaml files is restored with both locks, which nobody committed."""
    stages = TWO_EVALUATIONS
    project = repository(tmp_path / "project", {n: stages[n] for n in ("prepare", "train")})
    inner = {
        "cmd": "sh a.sh",
        "wdir": "work",
        "deps": ["../../model.txt", "a.sh"],
        "params": [{"../../params.yaml": ["a"]}],
        "metrics": ["a.json"],
    }
    script = """echo "{\\"score\\": $(sed -n 's/^a: //p' ../../params.yaml)}" > a.json"""
    dvc_yaml = json.dumps({"stages": {"a": inner}})
    project.write({"inner/dvc.yaml": dvc_yaml, "inner/work/a.sh": script})
    project.commit()
    reproduce(project, {}, "-P")
    run = last(project)
    assert {"md5.model.txt", "md5.inner/work/a.json"} <= run.data.tags.keys()
    restored(project, run)
