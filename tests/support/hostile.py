"""Rows, commits and files as somebody would make them who means ill."""

import sqlite3
import subprocess
from collections.abc import Mapping
from contextlib import chdir, closing
from pathlib import Path
from typing import Any, NamedTuple

from dvc_mlflow.pipeline.row_stages import locked_digests
from dvc_mlflow.pipeline.tags import KEPT, LOCK, TREE
from dvc_mlflow.project.project import Project
from dvc_mlflow.rows.result import read_state
from support.clone import contents, environment
from support.pipelines import Repository, Said, finished

LIMIT = "ulimit -v 8000000; exec dvc-mlflow"
"""A tool that reads without an end ends itself, not the machine."""


class Place(NamedTuple):
    """A repository, and beside it a folder that is none of its business."""

    project: Repository
    outside: Path

    @classmethod
    def copied(cls, made: Repository, folder: Path) -> "Place":
        """Copy a repository with its store, and make the folder beside it."""
        project = made.copy_whole(folder / "project")
        outside = folder / "outside"
        (outside / ".dvc").mkdir(parents=True)
        for name in ("victim.txt", ".gitignore", ".dvc/config.local"):
            (outside / name).write_text("[core]\n")
        (outside / "params.yaml").write_text("rate: 99\na: 99\nb: 99\n")
        return cls(project, outside)

    def untouched(self) -> dict[str, object]:
        """Return all files but those that the tool may write."""
        own = {"restored", "tmp", "cache", "worktrees", "objects", "mlartifacts", "dvc-mlflow"}
        own |= {"rows", "index", "logs", "mlflow.db", "mlflow.db-journal"}
        return contents(self.project.path.parent, *own)

    def tool(self, *words: str, **more: Any) -> Said:
        """Run the tool in this process, and check that it says what is wrong."""
        return plain(self.project.tool(*words, **environment(**more)))

    def run(self, *words: str, **more: Any) -> Said:
        """Run the tool as a program that ends in time, and check that it says what is wrong."""
        done = subprocess.run(
            ["bash", "-c", f'{LIMIT} "$@"', "dvc-mlflow", *words],
            cwd=self.project.path,
            env=environment(**more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            check=False,
        )
        return plain(Said(done.stdout, done.stderr, done.returncode))


def plain(said: Said) -> Said:
    """Check what a command has printed: no traceback and no control characters."""
    text = said.out + said.error
    assert "Traceback" not in text, said
    assert text.replace("\n", "").replace("\r", "").isprintable(), said
    assert said.status in (0, 1), said
    return said


def tag(project: Repository, run_id: str, tags: Mapping[str, str]) -> None:
    """Write tags to a row, as whoever can write to the store does: past MLflow's own checks."""
    with closing(sqlite3.connect(project.path / "mlflow.db")) as store, store:
        for key, value in tags.items():
            given = [key, value, run_id]
            store.execute("INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", given)


def small_pipeline(folder: Path) -> Repository:
    """Return a recorded pipeline of one stage that writes a folder and a metric."""
    stage = {
        "cmd": 'mkdir -p d; echo 1 > d/x; echo "{\\"n\\": 1}" > m.json',
        "deps": ["raw.txt"],
        "params": ["rate"],
        "outs": ["d"],
        "metrics": [{"m.json": {"cache": False}}],
    }
    project = finished(folder / "project", {"one": stage})
    project.record()
    return project


def commit_links(place: Place, links: Mapping[str, str]) -> tuple[str, str]:
    """Commit links beside what HEAD has, not in the checkout; return commit and tree."""
    project = place.project
    index = f"{project.path.parent}/index"
    project.run("git", "read-tree", "HEAD", GIT_INDEX_FILE=index)
    for path, target in links.items():
        text = target.replace("OUT", f"{place.outside}")
        (project.path.parent / "link").write_text(text)
        blob = project.git("hash-object", "-w", f"{project.path.parent}/link")
        project.run("git", "rm", "-rq", "--cached", "--ignore-unmatch", path, GIT_INDEX_FILE=index)
        given = f"120000,{blob},{path}"
        project.run("git", "update-index", "--add", "--cacheinfo", given, GIT_INDEX_FILE=index)
    tree = project.run("git", "write-tree", GIT_INDEX_FILE=index).stdout.strip()
    commit = project.git("commit-tree", tree, "-p", "HEAD", "-m", "Links")
    project.git("update-ref", f"refs/rows/{commit}", commit)
    for name in ("index", "link"):
        (project.path.parent / name).unlink()
    return commit, tree


def lets_row_name(project: Repository, commit: str, tree: str, digest: str = "") -> str:
    """Let the newest row name a commit with its tree, and a digest; return its run id."""
    run = project.rows()[-1]
    tags = {}
    for key in run.data.tags:
        for start, value in ((KEPT, commit), (TREE, tree), (LOCK, digest)):
            if value and key.startswith(start):
                tags[key] = value
    tag(project, run.info.run_id, tags)
    return f"{run.info.run_id}"


def digest_here(project: Repository, stage: str) -> str:
    """Return the digest of a stage's result in the checkout."""
    with chdir(project.path), Project() as opened:
        return locked_digests(read_state(opened).pipeline)[stage]
