"""Clones that git has not completed, and indexes of unusual forms: read, or refused in a line."""

import time
from pathlib import Path

import pytest

from support.hostile import Place
from support.pipelines import Repository

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def test_partial_clone(place: Place, tmp_path: Path) -> None:
    """A partial clone has the rows of what git has, and a line for the rest."""
    source = place.project
    source.set({"rate": 2})
    source.run("sed", "-i", "s,echo 1 > d/x,echo 2 > d/x,", "dvc.yaml")
    source.dvc("repro", "-q")
    source.commit("Second")
    source.git("config", "uploadpack.allowFilter", "true")
    source.git("clone", "-q", "--filter=blob:none", f"file://{source.path}", f"{tmp_path}/partial")
    partial = Place(Repository(tmp_path / "partial"), place.outside)
    began = time.monotonic()
    assert partial.run("record").returncode == 0
    said = partial.run("record", "--all")
    assert time.monotonic() - began < 60
    cure = "`git fetch --refetch --no-filter` completes a partial clone"
    assert f"git lacks dvc.yaml: {cure}" in said.stderr
    assert [row.data.params["rate"] for row in partial.project.rows()] == ["2"]
    partial.project.git("fetch", "-q", "--refetch", "--no-filter")
    assert partial.run("record", "--all").returncode == 0
    assert {row.data.params["rate"] for row in partial.project.rows()} == {"1", "2"}


@pytest.mark.parametrize("kind", ["split", "sparse"])
def test_index(place: Place, kind: str) -> None:
    """A split or a sparse index, which DVC's library does not know, is read by git."""
    project = place.project
    if kind == "split":
        project.git("config", "core.splitIndex", "true")
        project.git("update-index", "--split-index")
    else:
        project.write({"aside/x": "1\n"})
        project.commit("A folder")
        project.git("sparse-checkout", "set", "--cone", "--sparse-index", ".dvc")
    project.remove_store()
    for words in (["record"], ["record", "--all"]):
        said = place.run(*words, seconds=60)
        assert (said.returncode, said.stderr) == (0, ""), said
    assert [row.data.params["rate"] for row in project.rows()] == ["1"]
    assert project.git("fsck") == ""
