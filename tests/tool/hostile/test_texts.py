"""What people have written is shown as it is, and tokens are shown nowhere."""

import re
import shutil

import pytest

from dvc_mlflow.errors import masked
from dvc_mlflow.pipeline.tags import CHANGE, USER
from dvc_mlflow.place import default_experiment
from dvc_mlflow.rows.description import ended, lead
from support.hostile import Place

TOKEN = "s3cr3t"  # noqa: S105  (of nothing)
ADDRESSES = {
    f"https://us:{TOKEN}@example.org/us/flowers.git": "us/flowers",
    f"https://us:a/{TOKEN}@example.org/us/flowers.git": "us/flowers",
    f"https://us:{TOKEN}@{TOKEN}@example.org/us/flowers": "us/flowers",
    f"https://us:a?{TOKEN}#{TOKEN}@example.org/us/flowers": "us/flowers",
    f"https://{TOKEN}@example.org/us/flowers": "us/flowers",
    f"https://example.org/us/flowers.git?access_token={TOKEN}": "us/flowers",
    f"https://example.org/us/flowers.git?sv=1&sig={TOKEN}": "us/flowers",
    f"https://example.org/us/flowers.git#{TOKEN}": "us/flowers",
    f"ssh://git:{TOKEN}@example.org:22/us/flowers.git/": "us/flowers",
    f"git@example.org:us/flowers.git?token={TOKEN}": "us/flowers",
}
"""Addresses of a git remote, and the name of the experiment in each case."""


@pytest.mark.parametrize("url", ADDRESSES)
def test_masked(url: str) -> None:
    """No part of a password or a token is left in an address."""
    assert TOKEN not in masked(f"cannot reach '{url}': no route")
    assert masked("see https://example.org/a/b, then c") == "see https://example.org/a/b, then c"


@pytest.mark.pipeline
@pytest.mark.filterwarnings("ignore")  # warnings from MLflow
@pytest.mark.parametrize("url", ADDRESSES)
def test_remote(place: Place, url: str) -> None:
    """The experiment is named after owner and repository, whatever else the address has."""
    project = place.project
    project.git("remote", "add", "origin", url)
    (project.path / "mlflow.db").unlink()
    assert default_experiment(project.path) == ADDRESSES[url]


@pytest.mark.pipeline
@pytest.mark.filterwarnings("ignore")  # warnings from MLflow
@pytest.mark.parametrize("url", [*ADDRESSES][1:6:2])
def test_tokens_in_a_store(place: Place, url: str) -> None:
    """Neither rows nor lines have the tokens of git's and DVC's remotes."""
    project = place.project
    project.git("remote", "add", "origin", url)
    project.run("dvc", "remote", "add", "-q", "-d", "team", url.replace("git@", "https://"))
    project.remove_store()
    printed = ""
    for words in (["record"], ["record", "--all", "--fetch"], ["ui", "--port", "x"]):
        done = project.run("dvc-mlflow", *words, check=False, HTTPS_PROXY="http://127.0.0.1:9")
        printed += done.stdout + done.stderr
    assert project.rows()
    files = [p for p in project.path.rglob("ml*/**/*") if p.is_file()]
    files += project.path.glob("mlflow.db*")
    assert TOKEN not in printed + "".join(p.read_bytes().decode(errors="replace") for p in files)


TEXTS = [
    "![x](https://example.org/x.png)",
    "[x](javascript:alert(1))",
    "<img src=x onerror=alert(1)>",
    "see https://example.org/x",
    "www.example.org",
    "me@example.org",
    "a\r\n\r\n![x](y)",
    "a\u2028![x](y)",
    "``` ` ``",
    "[x]: https://example.org",
    "\x1b]8;;https://example.org\x07x",
]


@pytest.mark.parametrize("text", TEXTS)
def test_descriptions(text: str) -> None:
    """A subject, an author and a reason are code in a description: no link, image or control."""
    tags = {CHANGE: f"1234567 {text}", USER: text}
    for line in (lead(tags), ended("FAILED", f"{text}: {text}")):
        assert line.isprintable()
        # Outside of code there are only the tool's own words.
        rest = re.sub(r"(`+) ?(?:(?!\1).)+? ?\1(?!`)", "", line)
        assert re.fullmatch(r"[\w*, :]+", rest), (line, rest)


@pytest.mark.pipeline
@pytest.mark.filterwarnings("ignore")  # warnings from MLflow
def test_linked_folder(place: Place) -> None:
    """If the tool's own folder is a link, which a commit can bring, a line says so."""
    own = place.project.path / ".dvc/tmp/dvc-mlflow"
    shutil.rmtree(own)
    own.symlink_to(place.outside)
    before = place.untouched()
    for words in (["record"], ["record", "--all"], ["ui"], ["run", "true"]):
        done = place.run(*words)
        (line,) = done.stderr.splitlines()
        assert done.returncode == (0 if words[0] == "run" else 1)
        assert f"{own} is a link; nothing is written through it" in line
    assert place.untouched() == before
