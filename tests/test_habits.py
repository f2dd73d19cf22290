"""The files that GitHub, git, Docker, pip and make expect: each is valid, and they agree."""

import re
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from support.clone import ROOT, Clone

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


def test_two_commands_first() -> None:
    """The workflow and the Dockerfile run the pipeline, then the tests; every target exists.

    `.ci/run` begins with check and test; it and the workflow run all other suites.
    """
    steps = [step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step]
    layers = re.findall(r"^RUN (make .*)$", (ROOT / "Dockerfile").read_text(), re.M)
    assert steps[:2] == layers == ["make repro", "make test"]
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))
    made = [step.split()[1:] for step in steps if step.startswith("make ")]
    assert {word for words in made for word in words if "=" not in word} <= targets
    suites = re.findall(r"^RUN_(\w+) =", MAKEFILE, re.M)
    assert suites[0] == "main"
    lines = (ROOT / ".ci/run").read_text().splitlines()
    script = [line for line in lines if line.startswith(("make check", "make test"))]
    assert script[:2] == ["make check", "make test"]
    assert script[2:] == [f"make test SUITE={name}" for name in suites[1:] if name != "newest"]
    assert re.findall(r"run: make test SUITE=(\w+)", (ROOT / CI).read_text()) == suites[1:]


def test_cluster_suite() -> None:
    """All tests marked `cluster` are in the folder that their suite collects."""
    (folder,) = re.findall(r"^RUN_cluster = .* (\S+)$", MAKEFILE, re.M)
    mark = re.compile(r"^[ @]*pytest\.mark\.cluster\b", re.M)
    marked = [path for path in (ROOT / "tests").rglob("*.py") if mark.search(path.read_text())]
    assert marked
    assert all(path.is_relative_to(ROOT / folder) for path in marked)


def test_unknown_suite() -> None:
    """A suite that is none is refused, and the message says which there are."""
    done = Clone(ROOT).run("make", "test", "SUITE=all", check=False)
    assert done.returncode == 2
    rule = "SUITE must be main, rest, cluster, oldest or newest; received 'all'"
    assert rule in done.stderr


def test_one_version() -> None:
    """CITATION.cff and the newest release of CHANGELOG.md name the version of pyproject.toml.

    The workflow tests every version of Python that pyproject.toml allows.
    """
    cited = YAML(typ="safe").load(ROOT / "CITATION.cff")
    released = re.findall(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert cited["version"] == released[0] == PROJECT["version"]
    versions = JOBS["test"]["strategy"]["matrix"]["python"]
    lowest, above = map(int, re.findall(r"3\.(\d+)", PROJECT["requires-python"]))
    assert versions == [f"3.{minor}" for minor in range(lowest, above)]


LISTS = [ROOT / "requirements.txt", *sorted(ROOT.glob("requirements-*.txt"))]


def pins(text: str) -> list[str]:
    """Return the pins of a list: name, version and, where there is one, marker."""
    return [line.rstrip("\\ ") for line in re.findall(r"^[a-z].*", text, re.M)]


def test_requirements() -> None:
    """Requirements pin each package once, by hash, and name no registry: it is the user's choice.

    What both `dev` and `cluster` add is in `shared`.
    """
    assert len(LISTS) == 4
    times: Counter[str] = Counter()
    for path in LISTS:
        text = path.read_text()
        assert not re.findall(r"://|--(?:extra-)?index-url|--find-links|^-[if]\b", text, re.M)
        assert all(re.match(r"[a-z0-9-]+==\S", pin) for pin in pins(text))
        blocks = re.split(r"^(?=[a-z])", text, flags=re.M)[1:]
        assert all("--hash=sha256:" in block for block in blocks)
        times.update({pin.partition("==")[0] for pin in pins(text)})
    assert len(times) > 200
    assert [name for name, count in times.items() if count > 1] == []


def test_make_help() -> None:
    """`make help` lists every target that a user may call."""
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.M)
    assert phony
    done = Clone(ROOT).run("make", "help")
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
