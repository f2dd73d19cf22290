"""The files that GitHub, git, Docker, pip and make expect: each is valid, and they agree."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from clone import ROOT, Clone, environment

CI = ".github/workflows/ci.yml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
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
    """The workflow and the Dockerfile begin with README's two commands; every target exists."""
    steps = [step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step]
    layers = re.findall(r"^RUN (make .*)$", (ROOT / "Dockerfile").read_text(), re.M)
    assert steps[:2] == layers == ["make repro", "make test"]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    made = [step.split()[1:] for step in steps if step.startswith("make ")]
    assert {target for names in made for target in names} <= targets


def test_one_version() -> None:
    """CITATION.cff and the newest release of CHANGELOG.md name the version of pyproject.toml."""
    cited = YAML(typ="safe").load(ROOT / "CITATION.cff")
    released = re.findall(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert cited["version"] == released[0] == PROJECT["version"]


def addresses(text: str) -> list[str]:
    """Return every address to install from, and every option that sets one."""
    return re.findall(r"\S*://\S*|--(?:extra-)?index-url|--find-links|^-[if]\b", text, re.M)


@pytest.mark.parametrize("name", ["", "-dev", "-cluster"])
def test_requirements_name_no_registry(name: str) -> None:
    """Requirements name no registry, which is the user's choice, and pin every package by hash."""
    text = (ROOT / f"requirements{name}.txt").read_text()
    assert addresses(text) == []
    pinned = re.findall(r"^[a-z0-9-]+==", text, re.M)
    assert len(pinned) > 50
    blocks = re.split(r"^(?=[a-z])", text, flags=re.M)[1:]
    assert all("--hash=sha256:" in block for block in blocks)


def test_requirements_name_no_registry_can_fail() -> None:
    """An address is found, and so is each option that sets one."""
    text = "--index-url x\n-i x\na==1\nb @ https://example.org/b.whl\n--find-links x"
    assert addresses(text) == ["--index-url", "-i", "https://example.org/b.whl", "--find-links"]


def test_make_help() -> None:
    """`make help` lists every target that a user may call."""
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert phony
    done = subprocess.run(
        ["make", "help"], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    listed = re.findall(r"^make ([a-z-]+) +\S", done.stdout, re.M)
    assert sorted(listed) == sorted(phony[1].split())


def test_commit_hook(clone: Clone) -> None:
    """After `pre-commit install`, git refuses a commit that `make check` rejects."""
    (clone.path / ".venv").symlink_to(sys.prefix)
    clone.run("pre-commit", "install")
    (clone.path / "tools" / "unformatted.py").write_text("x = {  }\n")
    clone.git("add", "tools")
    cache = str(clone.path.parent / "pre-commit")
    done = clone.run("git", "commit", "-m", "Try", check=False, PRE_COMMIT_HOME=cache)
    assert done.returncode
    assert "tools/unformatted.py" in done.stderr
    assert "would be reformatted" in done.stderr
