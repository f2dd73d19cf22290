"""A row's commit is hostile: `restore` runs nothing of it, asks no remote of it, and stays inside.

Settings and remotes are those of the checkout.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.histories import by
from support.hostile import Place, commit_links, digest_here, lets_row_name
from support.pipelines import repository
from support.promoting import no_worktree, only_folder, restore

pytestmark = pytest.mark.pipeline


LINKS = {
    ".dvc/config.local": "OUT/.dvc/config.local",
    ".dvc/tmp": "OUT/tmp",
    ".dvcignore": "OUT/victim.txt",
    "dvc.lock": "OUT/victim.txt",
    "params.yaml": "OUT/params.yaml",
    "m.json": "OUT/victim.txt",
    "sub/to-git": "../.git",
    "raw.txt": "OUT/victim.txt",
}


@pytest.mark.parametrize("links", [LINKS, {".dvc": "../../.dvc"}], ids=["files", "folder"])
def test_links(place: Place, links: dict[str, str]) -> None:
    """A link that leads out of the folder, or to git's or DVC's own, is left out and named."""
    run_id = lets_row_name(place.project, *commit_links(place, links))
    before = place.untouched()
    said = place.tool("restore", run_id)
    assert place.untouched() == before
    folder = only_folder(place.project)
    assert not any((folder / path).is_symlink() for path in links)
    where = folder.relative_to(place.project.path)
    named = {f"{where / path}: is a link that leads out of the folder; left out" for path in links}
    assert named <= {*said.out.splitlines()}
    for line in said.error.splitlines():
        assert line.startswith(f"dvc-mlflow: {where}: "), line


def test_links_that_stay(place: Place) -> None:
    """Links inside of the tree stay, also those in a circle, and all is restored."""
    links = {"inside": "raw.txt", "a": "b", "b": "a", "sub/up": "../d/x"}
    run_id = lets_row_name(place.project, *commit_links(place, links))
    said = restore(place.project, run_id)
    assert (said.status, said.error) == (0, ""), said
    folder = only_folder(place.project)
    assert {name: f"{(folder / name).readlink()}" for name in links} == links
    assert (folder / "d/x").read_text() == "1\n"


def row_of_lock(place: Place, md5: str, objects: Mapping[str, bytes]) -> str:
    """Let the row's folder have an md5 in dvc.lock, and DVC's cache these files; return its id."""
    project = place.project
    text, n = re.subn(r"\S+\.dir$", md5, project.lock, flags=re.M)
    assert n == 1
    project.write({"dvc.lock": text})
    digest = digest_here(project, "one")
    for key, body in objects.items():  # as a remote could bring them
        cached = project.path / ".dvc/cache/files/md5" / key[:2] / key[2:]
        cached.parent.mkdir(parents=True, exist_ok=True)
        cached.write_bytes(body)
    project.git("add", "dvc.lock")
    tree = project.git("write-tree")
    commit = project.git("commit-tree", tree, "-p", "HEAD", "-m", "row")
    project.git("reset", "-q", "--hard")
    project.git("update-ref", f"refs/rows/{commit}", commit)
    return lets_row_name(project, commit, tree, digest)


def listing(*entries: tuple[str, str]) -> tuple[str, bytes]:
    """Return the md5 of a folder with these files, by md5 and path, and DVC's list of them."""
    listed = json.dumps([{"md5": md5, "relpath": path} for md5, path in entries]).encode()
    return f"{hashlib.md5(listed, usedforsecurity=False).hexdigest()}.dir", listed


EVIL = b"evil\n"
EVIL_MD5 = hashlib.md5(EVIL, usedforsecurity=False).hexdigest()


def said_of_it(place: Place, md5: str, objects: Mapping[str, bytes]) -> str:
    """Restore a row whose folder has this md5; return what the only line says of that.

    Nothing is written or deleted outside.
    """
    run_id = row_of_lock(place, md5, objects)
    before = place.untouched()
    said = restore(place.project, run_id)
    assert place.untouched() == before
    assert not [*place.project.path.glob("restored/**/new")]
    assert said.status == 1
    (line,) = said.error.splitlines()
    return line.partition(": d ")[2]


@pytest.mark.parametrize("name", ["../../../../outside/victim.txt", "/etc/new"])
def test_list_that_leads_out(place: Place, name: str) -> None:
    """A list of a folder's files that leads out of it writes nothing, and is named.

    The md5s of the list and of the content are right.
    """
    md5, listed = listing((EVIL_MD5, name), (EVIL_MD5, "x"))
    said = said_of_it(place, md5, {md5: listed, EVIL_MD5: EVIL})
    why = f"its list of files has {name!r}, which leads out of it"
    assert (said.startswith("(md5 "), said.partition(" is missing: ")[2]) == (True, why)
    assert not Path("/etc/new").exists()


@pytest.mark.parametrize("is_listed", [False, True], ids=["file", "list"])
def test_md5_that_is_a_path(place: Place, is_listed: bool) -> None:
    """An md5 that is a path out of DVC's cache, where DVC would delete the file, is left alone."""
    path = f"..{'/..' * 20}{place.outside}/victim.txt"
    md5, listed = listing((path, "x")) if is_listed else (path, b"")
    assert "is missing: " in said_of_it(place, md5, {md5: listed} if is_listed else {})


def test_settings(place: Place) -> None:
    """The settings of a commit name no place where DVC writes, and nothing of it runs."""
    project, outside = place.project, place.outside
    section = f"[core]\n    site_cache_dir = {outside}/site\n[cache]\n    dir = {outside}/cache\n"
    more = f"[remote \"x\"]\n    url = ext::sh -c 'touch {outside}/ran'\n"
    hook = f"#!/bin/sh\ntouch {outside}/ran\n"
    project.write(
        {
            ".dvc/config": section + more,
            ".githooks/post-checkout": hook,
            ".githooks/reference-transaction": hook,
            ".gitattributes": "* filter=evil\n",
            ".gitmodules": f'[submodule "s"]\n\tpath = s\n\turl = ext::touch {outside}/ran\n',
        }
    )
    for path in (project.path / ".githooks").iterdir():
        path.chmod(0o755)
    project.git("config", "submodule.recurse", "true")
    index = f"160000,{'1' * 40},s"
    project.git("add", "-f", ".dvc/config", ".githooks", ".gitattributes", ".gitmodules")
    project.git("update-index", "--add", "--cacheinfo", index)
    project.git("commit", "-q", "-m", "Settings")
    commit, tree = project.git("rev-parse", "HEAD"), project.git("rev-parse", "HEAD^{tree}")
    project.git("config", "submodule.recurse", "false")
    project.git("reset", "-q", "--hard", "HEAD~")
    project.git("update-ref", f"refs/rows/{commit}", commit)
    project.git("config", "submodule.recurse", "true")
    project.git("config", "core.hooksPath", ".githooks")
    run_id = lets_row_name(project, commit, tree)
    before = place.untouched()
    said = restore(project, run_id)
    assert (said.status, said.error) == (0, ""), said
    assert place.untouched() == before
    assert not [*outside.glob("ran"), *outside.glob("site"), *outside.glob("cache")]


def test_restored_is_a_link(place: Place) -> None:
    """If `restored` is a link or a file, or in a commit, one line says so."""
    above, (row,) = place.project.path / "restored", place.project.rows()

    def refused(why: str) -> None:
        before, listed = place.untouched(), {*place.outside.rglob("*")}
        line = f"dvc-mlflow: {above}: {why}; move it away\n"
        assert restore(place.project, row) == ("", line, 1)
        assert (place.untouched(), {*place.outside.rglob("*")}) == (before, listed)

    for target in (".", f"{place.outside}", ""):
        above.symlink_to(target) if target else above.write_text("mine\n")
        refused("restored is a link" if target else "restored is a file")
        above.unlink()
    place.project.write({"restored/theirs.txt": "theirs\n"})
    place.project.git("add", "-f", "restored/theirs.txt")
    refused("restored/theirs.txt is tracked by git")


def test_folder_of_the_users(place: Place) -> None:
    """What is in `restored` already stays as it is: files, and what is in the place of a row."""
    project = place.project
    above, run = project.path / "restored", project.rows()[-1]
    project.write({"restored/.gitignore": "mine\n", "restored/.dvc/config": "['core']\n"})
    theirs = above / (run.info.run_name or "").replace(" ", "-")
    theirs.symlink_to(place.outside / "nowhere")
    said = restore(project, run)
    assert (said.status, said.error) == (1, no_worktree(theirs))
    assert theirs.is_symlink()
    assert not (place.outside / "nowhere").exists()
    theirs.unlink()
    assert restore(project, run).status == 0
    assert (above / ".gitignore").read_text() == "mine\n"
    assert (above / ".dvc/config").read_text() == "['core']\n"


@pytest.mark.parametrize("of", ["the project", "the output"])
def test_remotes(place: Place, tmp_path: Path, of: str) -> None:
    """A remote that only the row's commit has is not asked, whatever it is the default of."""
    project = place.project
    config = f"['remote \"theirs\"']\n    url = {tmp_path}/remote\n"
    text = (project.path / "dvc.yaml").read_text().replace("echo 1 > d/x", "echo 2 > d/x")
    if of == "the project":
        config += "[core]\n    remote = theirs\n"
    else:
        text = text.replace('["d"]', '[{"d": {"remote": "theirs"}}]')
    project.git("checkout", "-q", "-b", "theirs")
    project.write({"dvc.yaml": text, ".dvc/config": config})
    project.set({"rate": 2})
    project.dvc("repro", "-q")
    project.dvc("push", "-q")
    assert (tmp_path / "remote").exists()
    project.commit("Theirs")
    project.record()
    project.git("checkout", "-q", "main")
    shutil.rmtree(project.path / ".dvc/cache")
    said = place.tool("restore", by("rate", project)["2"].info.run_id)
    (line,) = said.error.splitlines()
    assert (said.status, "d (md5" in line) == (1, True)
    assert "there is no default DVC remote" in line
    place_of_x = only_folder(project) / "d/x"
    assert not place_of_x.exists()
    project.write({".dvc/config": config})
    assert place.tool("restore", by("rate", project)["2"].info.run_id).status == 0
    assert place_of_x.exists()


def test_imports(place: Place) -> None:
    """What a .dvc file imports comes from there only if the checkout has the same file."""
    project = place.project
    source = repository(place.outside / "source", {}, files={"given.txt": "imported\n"})
    project.git("checkout", "-q", "-b", "theirs")
    project.dvc("import", "-q", f"{source.path}", "given.txt")
    project.run("sed", "-i", 's/"raw.txt"/"given.txt"/', "dvc.yaml")
    project.set({"rate": 2})
    project.dvc("repro", "-q")
    project.commit("Theirs")
    project.record()
    project.git("checkout", "-q", "main")
    for path in (project.path / ".dvc/cache").rglob("*"):
        if path.is_file() and path.read_bytes() == b"imported\n":
            path.unlink()
    said = place.tool("restore", by("rate", project)["2"].info.run_id)
    (line,) = said.error.splitlines()
    assert ": given.txt (md5 " in line
    assert line.endswith(" is missing: neither git nor DVC's cache has it")
    project.git("checkout", "-q", "theirs")
    assert place.tool("restore", by("rate", project)["2"].info.run_id).status == 0
