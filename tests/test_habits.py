"""The workflow, hooks and other files that GitHub, git and Docker expect in a repository."""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from clone import ROOT, Clone

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
    """The workflow runs every Python that pyproject.toml allows."""
    versions = JOBS["test"]["strategy"]["matrix"]["python"]
    lowest, above = map(int, re.findall(r"3\.(\d+)", PROJECT["requires-python"]))
    assert versions == [f"3.{minor}" for minor in range(lowest, above)]


def test_two_commands_first() -> None:
    """The workflow and the Dockerfile run README's two commands; each target exists."""
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
