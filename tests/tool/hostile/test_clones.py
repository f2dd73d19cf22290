"""Clones that git has not completed, and indexes of unusual forms: read, or refused in a line."""

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
    assert partial.tool("record").status == 0
    said = partial.tool("record", "--all")
    cure = "`git fetch --refetch --no-filter` completes a partial clone"
    assert f"git lacks params.yaml: {cure}" in said.error
    assert [row.data.params["rate"] for row in partial.project.rows()] == ["2"]
    partial.project.git("fetch", "-q", "--refetch", "--no-filter")
    assert partial.tool("record", "--all").status == 0
    assert {row.data.params["rate"] for row in partial.project.rows()} == {"1", "2"}


def test_index(place: Place) -> None:
    """A split or a sparse index, which DVC's library does not know, is read by git."""
    project = place.project
    project.git("config", "core.splitIndex", "true")
    project.git("update-index", "--split-index")
    recorded_again(place)
    project.git("update-index", "--no-split-index")
    project.git("config", "core.splitIndex", "false")
    project.write({"aside/x": "1\n"})
    project.commit("A folder")
    project.git("sparse-checkout", "set", "--cone", "--sparse-index", ".dvc")
    recorded_again(place)


def recorded_again(place: Place) -> None:
    """Check that the row is made again in a new store."""
    project = place.project
    project.remove_store()
    project.add_store()
    for words in (["record"], ["record", "--all"]):
        said = place.tool(*words)
        assert (said.status, said.error) == (0, ""), said
    assert [row.data.params["rate"] for row in project.rows()] == ["1"]
    assert project.git("fsck") == ""
