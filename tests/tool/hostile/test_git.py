"""Git runs nothing that a commit or a folder names; whatever the clone, rows are those of git."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from dvc_mlflow.pipeline.tags import KEPT, NAME, TREE, USER
from support.clone import environment
from support.hostile import Place
from support.pipelines import Repository

pytestmark = pytest.mark.pipeline

SIGN = """#!/bin/sh
cat > /dev/null
echo "[GNUPG:] SIG_CREATED " >&2
printf -- "-----BEGIN PGP SIGNATURE-----\\nx\\n-----END PGP SIGNATURE-----\\n"
"""


def program(path: Path, text: str) -> Path:
    """Write a program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_folder_like_a_bare_repository(place: Place, tmp_path: Path) -> None:
    """Git and DVC use no repository in a project's folder, whose settings could name programs."""
    inner, runs = place.project, tmp_path / "ran"
    outer = Repository(tmp_path / "outer")
    outer.path.mkdir()
    outer.git("init", "-q", "-b", "main")
    nested = Repository(inner.path.rename(outer.path / "sub"))
    nested.run("rm", "-rf", ".git")
    nested.remove_store()
    program(nested.path / "pwn", f"#!/bin/sh\ntouch {runs}\n")
    alternates = "".join(f"{'../' * n}.git/objects\n" for n in range(2, 6))
    nested.write(
        {
            "HEAD": "ref: refs/heads/x\n",
            "refs/heads/.keep": "",
            "objects/info/alternates": alternates,
            "config": "[core]\n\trepositoryformatversion = 0\n\tbare = true\n\tfsmonitor = ./pwn\n"
            "[log]\n\tshowSignature = true\n[gpg]\n\tprogram = ./pwn\n",
        }
    )
    outer.run("git", "add", "-A", "-f", ".")
    sign = program(tmp_path / "sign", SIGN)
    outer.git("-c", f"gpg.program={sign}", "commit", "-q", "-S", "-m", "Signed")
    assert "gpgsig" in outer.git("cat-file", "-p", "HEAD")
    nested.add_store()
    for words in (["record"], ["record", "--all"]):
        said = nested.tool(*words, **environment())
        assert (said.status, said.error) == (0, ""), said
    (row,) = nested.rows()
    said = nested.tool("restore", row.info.run_id, **environment())
    assert (said.status, said.error) == (0, ""), said
    assert not runs.exists()


PROGRAMS = {
    "core.fsmonitor": "monitor",
    "core.pager": "pager",
    "diff.external": "diff",
    "gpg.program": "gpg",
    "core.hooksPath": "",
}
"""Settings that name a program, and its name in the folder of hooks."""


def test_settings_of_a_folder(place: Place, tmp_path: Path) -> None:
    """Programs that the settings of an unpacked repository name are not started.

    Nor does what they would say of a signature come into names and authors.
    """
    project, ran = place.project, tmp_path / "ran"
    before = project.rows()[0].data.tags
    sign = program(tmp_path / "sign", SIGN)
    project.git("-c", f"gpg.program={sign}", "commit", "-q", "-S", "--amend", "--no-edit")
    project.remove_store()
    project.add_store()
    for name in ("post-checkout", "reference-transaction", "post-index-change", *PROGRAMS.values()):
        if name:
            program(tmp_path / "bin" / name, f"#!/bin/sh\ntouch {ran}/{name}\necho bad >&2\n")
    for key, name in PROGRAMS.items():
        project.git("config", key, f"{tmp_path / 'bin' / name}")
    project.git("config", "log.showSignature", "true")

    def checked(*words: str) -> str:
        shutil.rmtree(ran, ignore_errors=True)
        ran.mkdir()
        said = place.tool(*words)
        assert said.status == 0, said
        # DVC itself starts a monitor.
        assert {path.name for path in ran.iterdir()} <= {"monitor"}, words
        return said.error

    assert checked("record") + checked("record", "--all") == ""
    (row,) = project.rows()
    for key in (NAME, USER):
        assert row.data.tags[key] == before[key]
    project.set({"rate": 2})
    (project.path / "new.sh").write_text("true\n")
    project.dvc("repro", "-q")
    for words in (["record"], ["record", "--all"], ["restore", row.info.run_id]):
        checked(*words)


INHERITED: dict[str, Any] = {
    **{f"GIT_{kind}_PATHSPECS": "1" for kind in ("LITERAL", "GLOB", "ICASE")},
    **{"GIT_DIR": "/nowhere", "GIT_INDEX_FILE": "/nowhere/index"},
    **{"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "a"},
}


def test_environment(place: Place) -> None:
    """Pathspecs, another repository and settings in the environment change nothing that is read."""
    project = place.project
    project.set({"rate": 2})
    project.dvc("repro", "-q")
    said = place.tool("record", **INHERITED)
    assert (said.status, said.error) == (0, "")
    assert {row.data.params["rate"] for row in project.rows()} == {"1", "2"}
    kept = project.rows()[-1].data.tags[KEPT]
    assert project.git("rev-parse", f"refs/rows/{kept}") == kept


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a repository to somebody else")
def test_other_owner(place: Place) -> None:
    """Trust in another user's repository counts if the environment has it, as in containers."""
    project = place.project
    project.set({"rate": 2})
    project.dvc("repro", "-q")
    project.run("chown", "-R", "1234:1234", ".")
    keys = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory"}
    said = place.tool("record", **keys, GIT_CONFIG_VALUE_0="*")
    assert (said.status, said.error) == (0, ""), said
    assert TREE in project.rows()[-1].data.tags


def test_partial_clone(place: Place, tmp_path: Path) -> None:
    """A partial clone has the rows of what git has, and a line for the rest."""
    source = place.project
    source.set({"rate": 2})
    source.dvc("repro", "-q")
    source.commit("Second")
    source.git("config", "uploadpack.allowFilter", "true")
    source.git("clone", "-q", "--filter=blob:none", f"file://{source.path}", f"{tmp_path}/partial")
    partial = Place(Repository(tmp_path / "partial"), place.outside)
    partial.project.add_store()
    assert partial.tool("record").status == 0
    said = partial.tool("record", "--all")
    cure = "`git fetch --refetch --no-filter` completes a partial clone"
    assert f"git lacks params.yaml: {cure}" in said.error
    assert [row.data.params["rate"] for row in partial.project.rows()] == ["2"]
    partial.project.git("fetch", "-q", "--refetch", "--no-filter")
    assert partial.tool("record", "--all").status == 0
    assert {row.data.params["rate"] for row in partial.project.rows()} == {"1", "2"}
