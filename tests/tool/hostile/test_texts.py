"""What people have written is shown as it is, and tokens are shown nowhere."""

import re
from pathlib import Path

import pytest

from dvc_mlflow.errors import masked
from dvc_mlflow.pipeline.tags import CHANGE, USER
from dvc_mlflow.place import default_experiment
from dvc_mlflow.rows.description import ended, lead
from support.clone import Clone
from support.hostile import Place
from support.refusals import SECRET

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings from MLflow

ADDRESSES = {
    f"https://us:a/{SECRET}@example.org/us/flowers.git": "us/flowers",
    f"https://us:{SECRET}@{SECRET}@example.org/us/flowers": "us/flowers",
    f"https://us:a?{SECRET}#{SECRET}@example.org/us/flowers": "us/flowers",
    f"https://{SECRET}@example.org/us/flowers": "us/flowers",
    f"https://example.org/us/flowers.git?access_token={SECRET}": "us/flowers",
    f"https://example.org/us/flowers.git?sv=1&sig={SECRET}": "us/flowers",
    f"https://example.org/us/flowers.git#{SECRET}": "us/flowers",
    f"ssh://git:{SECRET}@example.org:22/us/flowers.git/": "us/flowers",
    f"git@example.org:us/flowers.git?token={SECRET}": "us/flowers",
}
"""Addresses of a git remote, and the name of the experiment in each case."""


def test_addresses(tmp_path: Path) -> None:
    """Of an address, the experiment's name has owner and repository, and a line no token."""
    project = Clone(tmp_path)
    project.git("init", "-q")
    project.git("remote", "add", "origin", "x")
    names = {}
    for url in ADDRESSES:
        assert SECRET not in masked(f"cannot reach '{url}': no route")
        project.git("remote", "set-url", "origin", url)
        names[url] = default_experiment(tmp_path)
    assert names == ADDRESSES
    assert masked("see https://example.org/a/b, then c") == "see https://example.org/a/b, then c"


@pytest.mark.pipeline
def test_tokens_in_a_store(place: Place) -> None:
    """Neither rows nor lines have the tokens of git's and DVC's remotes."""
    project, url = place.project, [*ADDRESSES][3]
    project.git("remote", "add", "origin", url)
    project.dvc("remote", "add", "-q", "-d", "team", url)
    project.remove_store()
    project.add_store()
    printed = ""
    for words in (["record"], ["record", "--all", "--fetch"]):
        printed += "".join(map(str, place.tool(*words, HTTPS_PROXY="http://127.0.0.1:9")))
    assert project.rows()
    files = [p for p in project.path.rglob("ml*/**/*") if p.is_file()]
    files += project.path.glob("mlflow.db*")
    assert SECRET not in printed + "".join(p.read_bytes().decode(errors="replace") for p in files)


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


def test_descriptions() -> None:
    """A subject, an author and a reason are code in a description: no link, image or control."""
    for text in TEXTS:
        tags = {CHANGE: f"1234567 {text}", USER: text}
        for line in (lead(tags), ended("FAILED", f"{text}: {text}")):
            assert line.isprintable()
            # Outside of code there are only the tool's own words.
            rest = re.sub(r"(`+) ?(?:(?!\1).)+? ?\1(?!`)", "", line)
            assert re.fullmatch(r"[\w*, :]+", rest), (line, rest)
