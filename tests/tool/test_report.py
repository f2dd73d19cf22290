"""`dvc-mlflow report`: what a pull request changes, as Markdown."""

import json
import re
import shutil
from pathlib import Path

import pytest

from pipelines import Repository, Stages, evaluate, finished, makes, train

pytestmark = pytest.mark.pipeline

PIPELINE: Stages = {"train": train("raw.txt"), "a": evaluate("a")}
SAME = "It is what the code makes: the same bytes."


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline that has run, with its results committed, for all tests: copy it."""
    return finished(tmp_path_factory.mktemp("made") / "project", PIPELINE)


def report(project: Repository, *arguments: str, folder: str = ".") -> tuple[int, str]:
    """Return the exit status and the report, which changes nothing that git sees."""
    before = project.git("status", "--porcelain")
    said = project.tool("report", *arguments, folder=folder)
    assert said.error == ""
    assert project.git("status", "--porcelain") == before
    return said.status, said.out


def cells(text: str) -> list[list[str]]:
    """Return the cells of a report's tables."""
    return [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("|")]


def test_report(project: Repository) -> None:
    """The report shows changed params and metrics, and whether dvc.lock is up to date."""
    first = project.git("rev-parse", "HEAD")
    status, text = report(project)
    assert (status, text.splitlines()[0]) == (
        0,
        f"No metric and no param has changed since {first[:7]}.",
    )
    project.set({"a": 2.5})
    project.commit("Change a param and run nothing")
    status, text = report(project, "HEAD^")
    assert status == 1
    assert "\na: not made by this code and these params. Run `dvc repro`.\n" in text
    assert ["params.yaml", "a", "1", "2.5", "1.5"] in cells(text)
    assert "### Metrics" not in text

    project.dvc("repro", "-q")
    status, text = report(project, "HEAD^")
    assert status == 1
    assert "\n`dvc repro` has changed a.json, dvc.lock. Commit it.\n" in text
    project.commit("Commit what the code made of it")
    for base in (first, "HEAD~2"):
        status, text = report(project, base)
        assert status == 0
        assert f"### dvc.lock\n\n{SAME}\n" in text
        assert ["a.json", "score", "1", "2.5", "1.5"] in cells(text)
        assert ["file", "metric", first[:7], "now", "change"] in cells(text)


def test_code_is_no_missing_file(project: Repository) -> None:
    """Changed or deleted code, params and outputs in git are reported as not up to date."""
    stages = {"one": makes({"m.json": "{}"}, metrics=[{"m.json": {"cache": False}}])}
    stages["one"] |= {"deps": ["raw.txt"], "params": ["rate"]}
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    project.dvc("repro", "-q")
    project.commit("Results")
    for file in ("raw.txt", "m.json", "params.yaml"):
        for text in ("", None):
            path = project.path / file
            path.write_text("other: 1\n") if text is not None else path.unlink()
            if file == "params.yaml" and text is None:
                path.write_text("")
            status, said = report(project)
            assert status == 1
            assert "one: not made by this code and these params." in said
            project.git("checkout", "-q", ".")
    project.git("rm", "-q", "--cached", "dvc.lock")
    assert "`dvc repro` has changed dvc.lock." in report(project)[1]


def test_default_base(project: Repository, tmp_path: Path) -> None:
    """The default base is where this branch left the remote's default branch."""
    project.run("git", "clone", "-q", "--bare", ".", f"{tmp_path}/origin.git")
    project.run("git", "clone", "-q", f"{tmp_path}/origin.git", f"{tmp_path}/clone")
    clone = Repository(tmp_path / "clone")
    clone.dvc("repro", "-q")
    clone.git("checkout", "-q", "-b", "branch")
    clone.set({"rate": 2})
    clone.commit("On the branch")
    clone.dvc("repro", "-q")
    clone.commit("Results")
    clone.git("checkout", "-q", "main")
    clone.git("commit", "-q", "--allow-empty", "-m", "On main")
    clone.git("push", "-q", "origin", "main")
    clone.git("checkout", "-q", "branch")
    clone.dvc("checkout", "-q")
    status, text = report(clone)
    assert status == 0
    assert ["params.yaml", "rate", "1", "2", "1"] in cells(text)
    clone.git("remote", "remove", "origin")
    assert "No metric and no param" in report(clone)[1]


def test_projects(project: Repository) -> None:
    """Each project of the repository has its tables; missing files count in this one only."""
    project.run("sh", "-c", "mkdir -p in/ner && cd in/ner && dvc init -q --subdir")
    inner = {"one": makes({"m.json": '{"m": 1}', "big": "1"}, metrics=["m.json"], outs=["big"])}
    project.write({"in/ner/dvc.yaml": json.dumps({"stages": inner})})
    project.run("sh", "-c", "cd in/ner && dvc repro -q")
    project.commit("A nested project")
    status, text = report(project, "HEAD^")
    assert status == 0
    assert "### Metrics of in/ner/\n" in text
    assert ["m.json", "m", "", "1", ""] in cells(text)
    assert text.count(SAME) == 2
    shutil.rmtree(project.path / "in/ner/.dvc/cache")
    (project.path / "in/ner/big").unlink()
    missing = "Not checked, as files of one are not here: run `dvc repro` or `dvc pull`."
    status, text = report(project)
    assert status == 0
    assert f"### dvc.lock of in/ner/\n\n{missing}\n" in text
    status, text = report(project, folder="in/ner")
    assert status == 1
    assert f"### dvc.lock of in/ner/\n\n{missing}\n" in text
    inner["two"] = makes({"two.txt": "2"}, outs=["two.txt"])
    project.write({"in/ner/dvc.yaml": json.dumps({"stages": inner})})
    status, text = report(project, folder="in")
    assert status == 1
    assert "\ntwo: not made by this code and these params. Run `dvc repro`.\n" in text


def test_fresh_clone(project: Repository, tmp_path: Path) -> None:
    """In a fresh clone, whose files DVC does not have yet, nothing is confirmed."""
    project.run("git", "clone", "-q", ".", f"{tmp_path}/clone")
    status, text = report(Repository(tmp_path / "clone"))
    assert status == 1
    assert "Not checked, as files of train, a are not here" in text


def test_stage_that_always_runs(project: Repository) -> None:
    """A stage that always runs or is frozen is not reported as out of date."""
    stages = {**PIPELINE, "always": makes({"x": "1"}, outs=["x"], always_changed=True)}
    stages["a"] = {**stages["a"], "frozen": True}
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    project.dvc("repro", "-q")
    project.commit("Results")
    assert report(project)[0] == 0


def test_json(project: Repository) -> None:
    """With --json, the report is machine-readable."""
    project.set({"a": 2})
    project.dvc("repro", "-q")
    status, text = report(project, "--json")
    changed = {"old": 1, "new": 2, "diff": 1}
    assert status == 1
    assert json.loads(text) == {
        "base": project.git("rev-parse", "HEAD"),
        "ok": False,
        "projects": [
            {
                "folder": "",
                "metrics": {"a.json": {"score": changed}},
                "params": {"params.yaml": {"a": changed}},
                "problem": "`dvc repro` has changed a.json, dvc.lock. Commit it.",
            }
        ],
    }


@pytest.mark.parametrize("base", ["nothing", "HEAD~99", "a\x1b[31mb\nc", "HEAD:dvc.yaml", " "])
def test_unknown_base(project: Repository, base: str) -> None:
    """An unknown base is reported in one line, without control characters."""
    said = project.tool("report", base)
    assert (said.status, said.out, said.error.count("\n")) == (1, "", 1)
    assert said.error.startswith("dvc-mlflow: BASE must be a commit, a branch or a tag; received ")
    assert said.error[:-1].isprintable()
    done = project.run("dvc-mlflow", "report", "--output=x", check=False)
    assert done.returncode == 2
    assert project.tool("report", "--", "--output=x").status == 1
    assert not (project.path / "x").exists()


def test_no_repository(project: Repository) -> None:
    """Without a commit, a project or git, one line says so."""
    (project.path / "new").mkdir()
    for command, line in [
        ("git init -q && dvc init -q", "there is no commit yet"),
        (
            "rm -r .dvc && git commit -q --allow-empty -m x",
            f"{project.path}/new: has no DVC project",
        ),
        ("rm -rf .git ../.git", "git rev-parse: "),
    ]:
        project.run("sh", "-c", f"cd new && {command}")
        said = project.tool("report", folder="new")
        assert (said.status, said.out, said.error.count("\n")) == (1, "", 1)
        assert said.error.startswith(f"dvc-mlflow: {line}")


HOSTILE = {
    "a | b |\n### dvc.lock\n": f"x\n\n### dvc.lock\n\n{SAME}",
    "<script>alert(1)</script>": "<img src=x onerror=alert(1)>",
    "[link](https://evil.example)": "![picture](https://evil.example/x.png)",
    "\x1b[31m`code`": "\u202e**bold** @everyone",
    "x" * 5000: "\\| \\",
}


def test_hostile_names(project: Repository) -> None:
    """Names and values of a pull request are shown as they are, and stay in their cells."""
    stage = {"cmd": "cp evil.json m.json", "deps": ["evil.json"], "metrics": ["m.json"]}
    stages = {"evil": {**stage, "params": [{"evil.json": ["y"]}]}, "### x|<b>": makes({"z": "1"})}
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    project.write({"evil.json": json.dumps({"y": 1, **HOSTILE})})
    project.dvc("repro", "-q", "evil")
    status, text = report(project)
    assert status == 1
    assert text.replace("\n", "").isprintable()
    assert SAME not in text.splitlines()
    assert not re.search(r"[<>`\[\]*@\\]", re.sub("`dvc repro`", "", text))
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {6}
    assert len([line for line in text.splitlines() if line.startswith("#")]) == 3
    assert max(map(len, text.splitlines())) < 2000
