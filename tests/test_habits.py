"""The files that GitHub, git, Docker, pip and make expect: each is valid, and they agree."""

import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from support.clone import ROOT, Clone, environment
from support.pipelines import evaluate, finished

CI = ".github/workflows/ci.yml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
JOBS: dict[str, Any] = YAML(typ="safe").load(ROOT / CI)["jobs"]

SCHEMA = "check-jsonschema --builtin-schema vendor."
CHECKS = [
    (f"{SCHEMA}github-workflows", CI, "runs-on:", "runs_on:"),
    ("zizmor --offline --quiet", CI, r"@\w{40}", "@v7"),
    (f"{SCHEMA}dependabot", ".github/dependabot.yml", "monthly", "yearlong"),
    (f"{SCHEMA}citation-file-format", "CITATION.cff", "authors:", "writers:"),
    ("pre-commit validate-config", ".pre-commit-config.yaml", "entry:", "enter:"),
    ("hadolint --failure-threshold warning", "Dockerfile", ":3.13-slim-trixie", ""),
]


@pytest.mark.parametrize(("command", "name", "right", "wrong"), CHECKS, ids=lambda text: text[:30])
def test_schemas_and_linters(
    tmp_path: Path, command: str, name: str, right: str, wrong: str
) -> None:
    """Each file passes its published schema or linter, and fails with a mistake in it."""
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    text = (ROOT / name).read_text()
    for content, valid in [(text, True), (re.sub(right, wrong, text), False)]:
        file.write_text(content)
        done = Clone(tmp_path).run(*command.split(), name, check=False)
        assert (done.returncode == 0) == valid, done.stdout + done.stderr


def test_each_python_that_is_promised() -> None:
    """The workflow tests every version of Python that pyproject.toml allows."""
    versions = JOBS["test"]["strategy"]["matrix"]["python"]
    lowest, above = map(int, re.findall(r"3\.(\d+)", PROJECT["requires-python"]))
    assert versions == [f"3.{minor}" for minor in range(lowest, above)]


def test_two_commands_first() -> None:
    """The workflow and the Dockerfile run the pipeline, then the tests; every target exists."""
    steps = [step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step]
    layers = re.findall(r"^RUN (make .*)$", (ROOT / "Dockerfile").read_text(), re.M)
    assert steps[:2] == layers == ["make repro", "make test"]
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))
    made = [step.split()[1:] for step in steps if step.startswith("make ")]
    assert {word for words in made for word in words if "=" not in word} <= targets


def test_every_suite_runs() -> None:
    """`.ci/run` begins with check and test; it and the workflow run all other suites."""
    suites = re.findall(r"^RUN_(\w+) =", MAKEFILE, re.M)
    assert suites[0] == "main"
    script = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line[:4] == "make"]
    assert script[:2] == ["make check", "make test"]
    assert script[2:] == [f"make test SUITE={name}" for name in suites[1:] if name != "newest"]
    run = re.findall(r"run: make test SUITE=(\w+)", (ROOT / CI).read_text())
    assert run == suites[1:]


def test_unknown_suite() -> None:
    """A suite that is none is refused, and the message says which there are."""
    done = subprocess.run(
        ["make", "test", "SUITE=all"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    rule = "SUITE must be main, rest, cluster, oldest or newest; received 'all'"
    assert rule in done.stderr


def test_one_version() -> None:
    """CITATION.cff and the newest release of CHANGELOG.md name the version of pyproject.toml."""
    cited = YAML(typ="safe").load(ROOT / "CITATION.cff")
    released = re.findall(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert cited["version"] == released[0] == PROJECT["version"]


REPORTED = """\
| Path        | Param   | HEAD^1   | workspace   |
|-------------|---------|----------|-------------|
| params.yaml | a       | 1        | 2           |

| Path   | Metric   | HEAD^1   | workspace   | Change   |
|--------|----------|----------|-------------|----------|
| a.json | score    | 1        | 2           | 1        |

"""
"""What a pull request's report shows of a project in which a param and its metric have changed."""


@pytest.mark.pipeline
@pytest.mark.rest
def test_report_of_a_pull_request(tmp_path: Path) -> None:
    """The report shows each project's changes, and fails unless dvc.lock is what the code makes."""
    _, show, check = (step["run"] for step in JOBS["report"]["steps"] if "run" in step)
    summary = tmp_path / "summary"
    root = finished(tmp_path / "project", {"a": evaluate("a", "raw.txt")}, {"a": 1})
    (root.path / ".venv").symlink_to(sys.prefix)
    (root.path / ".git/info/exclude").write_text("/.venv\n")
    nested = type(root)(root.path / "claims")
    root.run("sh", "-c", "mkdir claims && cp dvc.yaml params.yaml raw.txt claims")
    nested.dvc("init", "-q", "--subdir")
    nested.dvc("repro", "-q")
    root.commit("Two projects")

    def runs(script: str) -> bool:
        more = {"GITHUB_STEP_SUMMARY": f"{summary}"}
        return not root.run("bash", "-e", "-c", script, check=False, **more).returncode

    assert runs(check)
    for project in (root, nested):
        project.set({"a": 2})
        root.commit("A param, without its result")
        assert not runs(check)
        project.dvc("repro", "-q")
        assert not runs(check)
        root.git("commit", "-q", "-a", "--amend", "-m", "A param and its result")
        assert runs(check)
        root.git("rm", "-q", "--cached", f"{project.path}/dvc.lock")
        assert not runs(check)
        root.git("reset", "-q")
    root.git("reset", "-q", "--soft", "HEAD~2")
    root.commit("Both")
    assert runs(show)
    assert summary.read_text() == REPORTED * 2


def addresses(text: str) -> list[str]:
    """Return every address to install from, and every option that sets one."""
    return re.findall(r"\S*://\S*|--(?:extra-)?index-url|--find-links|^-[if]\b", text, re.M)


LISTS = [ROOT / "requirements.txt", *sorted(ROOT.glob("requirements-*.txt"))]


def pins(text: str) -> list[str]:
    """Return the pins of a list: name, version and, where there is one, marker."""
    return [line.rstrip("\\ ") for line in re.findall(r"^[a-z].*", text, re.M)]


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.name)
def test_requirements_name_no_registry(path: Path) -> None:
    """Requirements name no registry, which is the user's choice, and pin every package by hash."""
    text = path.read_text()
    assert addresses(text) == []
    assert pins(text)
    assert all(re.match(r"[a-z0-9-]+==\S", pin) for pin in pins(text))
    blocks = re.split(r"^(?=[a-z])", text, flags=re.M)[1:]
    assert all("--hash=sha256:" in block for block in blocks)


def test_each_pin_is_said_once() -> None:
    """No package is in two lists: what both `dev` and `cluster` add is in `shared`."""
    assert len(LISTS) == 4
    listed = [{pin.partition("==")[0] for pin in pins(path.read_text())} for path in LISTS]
    times = Counter(name for names in listed for name in names)
    assert len(times) > 200
    assert [name for name, count in times.items() if count > 1] == []


def test_nothing_is_missing() -> None:
    """The lists, which pip installs as they are, have everything that their packages need."""
    check = [sys.executable, "-m", "pip", "check", "--disable-pip-version-check"]
    done = subprocess.run(check, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_requirements_name_no_registry_can_fail() -> None:
    """An address is found, and so is each option that sets one."""
    text = "--index-url x\n-i x\na==1\nb @ https://example.org/b.whl\n--find-links x"
    assert addresses(text) == ["--index-url", "-i", "https://example.org/b.whl", "--find-links"]


def test_make_help() -> None:
    """`make help` lists every target that a user may call."""
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.M)
    assert phony
    done = subprocess.run(
        ["make", "help"], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    listed = re.findall(r"^make ([a-z-]+) +\S", done.stdout, re.M)
    assert sorted(listed) == sorted(phony[1].split())
    assert len(listed) <= 12


def test_commit_hook(clone: Clone) -> None:
    """After `pre-commit install`, git refuses a commit that `make check` rejects."""
    (clone.path / ".venv").symlink_to(sys.prefix)
    clone.run("pre-commit", "install")
    (clone.path / "tools" / "unformatted.py").write_text("x = {  }\n")
    clone.git("add", "tools")
    more = {
        "PRE_COMMIT_HOME": f"{clone.path.parent}/pre-commit",
        "MAKEFLAGS": "-o .venv/dev",  # or it could install into the .venv that others use
    }
    done = clone.run("git", "commit", "-m", "Try", check=False, **more)
    assert done.returncode
    assert "tools/unformatted.py" in done.stderr
    assert "would be reformatted" in done.stderr
