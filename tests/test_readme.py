"""README.md is true: its commands run, in order, and print what it shows; so are its links."""

import ast
import re
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from support.clone import ROOT, Clone, environment, make_clone
from support.pipelines import Repository, last
from support.processes import wait
from support.servers import answers, running

pytestmark = pytest.mark.pipeline

README = (ROOT / "README.md").read_text()
BUILT = "-o .venv/run -o .venv/dev"
"""Keeps `make` from installing into the .venv that others use."""
SERVERS = {"make ui": 5000, "mlflow models serve": 5001}
"""The commands that keep running, each with the port that it listens on."""


def blocks(language: str) -> list[str]:
    """Return the text of README's code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield README's commands in order, each with the output that README shows."""
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, *output = re.split(r"(?<!\\)\n", part.rstrip("\n"))
            yield command.replace("\\\n", " "), [line for line in output if line.strip()]


def pattern(line: str) -> str:
    """Return a regular expression for a line that README shows; `...` stands for anything."""
    return ".*".join(map(re.escape, line.strip().split("...")))


@pytest.mark.rest(minutes=3)
@pytest.mark.filterwarnings("ignore")  # MLflow's client warns in the test process
def test_commands_print_what_readme_shows(tmp_path: Path) -> None:
    """A stranger who types README's commands in order sees what README shows."""
    assert len([*commands()]) == 10
    stranger = Repository(make_clone(tmp_path / "clone", params={}).path)
    stranger.remove_store()
    (stranger.path / ".venv").symlink_to(ROOT / ".venv")
    with ExitStack() as servers:
        for command, shown in commands():
            for start, port in SERVERS.items():
                if command.startswith(start):
                    server = running(
                        ["bash", "-c", f"exec {command}"],
                        partial(answers, f"http://127.0.0.1:{port}"),
                        cwd=stranger.path,
                        env=environment(MAKEFLAGS=BUILT),
                    )
                    servers.enter_context(server)
                    break
            else:
                if "<row>" in command:
                    command = command.replace("<row>", newest_row(stranger))  # noqa: PLW2901
                if command.startswith("dvc queue start"):
                    assert not shown
                    table = stranger.dvc("queue", "status").stdout
                    queued = re.findall(r"^(\w+) .* Queued", table, re.M)
                    assert len(queued) == 4
                    stranger.dvc("queue", "remove", *queued[1:])  # DVC's queue needs no proof
                    stranger.run_queue()
                    continue
                done = stranger.run("bash", "-c", command, MAKEFLAGS=BUILT)
                printed = done.stdout + done.stderr
                for line in shown:
                    assert re.search(pattern(line), printed), f"{command}\n{line}\n\n{printed}"


def newest_row(project: Repository) -> str:
    """Return the digits of the newest row, which its name has once its stages have ended."""
    found = wait(lambda: re.match("[0-9a-f]{7}(?= )", last(project).info.run_name or ""))
    return str(found[0])


def test_the_sixth_task(reproduced: Clone, tmp_path: Path) -> None:
    """The diff that README shows for your own task makes that task's data."""
    clone = reproduced.copy(tmp_path / "clone")
    (diff,) = blocks("diff")
    (tmp_path / "task.diff").write_text(diff)
    clone.git("apply", str(tmp_path / "task.diff"))
    clone.set({"data.targets": [1, 7]})
    clone.dvc("repro", "generate-test-data")
    with np.load(clone.path / "data" / "test.npz") as data:
        np.testing.assert_array_equal(data["y"], data["x"][:, [1, 7]].max(axis=1))


PAGES = [*ROOT.glob("*.md"), *ROOT.glob("[!.]*/**/*.md")]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> list[str]:
    """Return the links and pictures of a page that lead to no file or to no heading of one."""
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)|^\[\w+\]: (\S+)$", text, re.M):
        target = "".join(link)
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        if "://" not in target and not (
            path.exists() and (not anchor or anchor in anchors(path.read_text()))
        ):
            found.append(target)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: f"{path.relative_to(ROOT)}")
def test_links_lead_somewhere(page: Path) -> None:
    """Every file, picture and heading that a page links to is there."""
    assert broken_links(page, page.read_text()) == []


def test_links_lead_somewhere_can_fail() -> None:
    """A file that is not there is found, and so is a heading."""
    text = "# A `b`: c\n[1](#a-b-c) [2](LICENSE) [3](https://a.b)\n[4](none)\n[5](README.md#none)\n"
    assert broken_links(ROOT / "README.md", text) == ["#a-b-c", "none", "README.md#none"]
    assert anchors(text) == {"a-b-c"}


def names_in(module: Path) -> set[str]:
    """Return the names of the tests in a module."""
    tree = ast.parse(module.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_each_promise_has_its_test() -> None:
    """Every promise of docs/GUARANTEES.md names a test that exists; so does docs/SWEEP.md."""
    page = (ROOT / "docs" / "GUARANTEES.md").read_text()
    proofs = re.findall(r"^\| (?!promise \|).*\| (.*) \|$", page, re.M)
    assert len(proofs) > 20
    for proof in proofs:
        assert re.fullmatch(r"`tests/[\w/]+\.py::test_\w+`(, `tests/[\w/]+\.py::test_\w+`)*", proof)
        for module, name in re.findall(r"`(.+?)::(\w+)`", proof):
            assert name in names_in(ROOT / module), f"{module}::{name}"
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "SWEEP.md").read_text()))
    assert len(named) > 12
    assert named <= {name for p in ROOT.glob("tests/tool/sweep/*.py") for name in names_in(p)}


def test_speeds_are_those_of_the_benchmark() -> None:
    """README's speeds are those of the last `make bench`."""
    table = re.findall(r"^\|.*\|$", README.partition("\n## Speed\n")[2].partition("\n## ")[0], re.M)
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text().splitlines()
    assert len(table) > 5
    assert set(table) <= set(results)
