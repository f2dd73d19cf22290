"""Repair what a killed `dvc` or git left behind: `python tools/heal.py [FOLDER…]`.

`make repro` and `make claims` begin with it. DVC writes dvc.lock and its tables of locks in place,
so a kill can cut them off. Each is read again under its writer's lock before it is changed: nothing
intact is touched, nor what a running `dvc` writes. If that keeps its lock, this exits with 1.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from dvc.dvcfile import LOCK_FILE, PROJECT_FILE, FileIsGitIgnored, Lockfile
from dvc.exceptions import DvcException
from dvc.lock import make_lock
from dvc.repo import Repo


def main(folders: list[str]) -> None:
    """Repair the DVC projects in some folders; print what was wrong and what was done."""
    for folder in folders:
        with Repo(folder) as repo:
            for heal in (heal_index, heal_lock_tables, heal_lock_files):
                for line in heal(repo):
                    print(line)


def heal_index(repo: Repo) -> Iterator[str]:
    """Remove git's index.lock if no process in this checkout can have made it."""
    words = ["rev-parse", "--path-format=absolute", "--show-toplevel", "--git-path", "index.lock"]
    if found := os.fsdecode(git(repo.root_dir, *words)).splitlines():
        top, lock = map(Path, found)
        if lock.is_file() and not is_used(top):
            before = lock.stat()
            time.sleep(1)  # git can be built into a program of any name, such as an editor
            if lock.exists() and lock.stat() == before:
                lock.unlink()
                yield f"{lock}: was left by a killed process; removed"


def is_used(top: Path) -> bool:
    """Whether git or `dvc` runs in a checkout, or where it hides its folder."""
    for process in psutil.process_iter(["name", "cwd", "status"]):
        name, cwd = process.info["name"] or "", process.info["cwd"]
        is_one = re.search(r"\bgit|git$|^dvc$", name)  # not "digits"
        is_here = cwd is None or Path(cwd).is_relative_to(top)
        if is_one and is_here and process.info["status"] != psutil.STATUS_ZOMBIE:
            return True
    return False


def heal_lock_tables(repo: Repo) -> Iterator[str]:
    """Remove DVC's tables of locks that are not JSON."""
    hard = repo.config["core"].get("hardlink_lock", False)
    for folder in (Path(repo.tmp_dir), Path(repo.tmp_dir, "exps")):
        table = folder / "rwlock"
        if not is_json(table):
            with make_lock(f"{table}.lock", tmp_dir=f"{folder}", hardlink_lock=hard):
                if not is_json(table):
                    table.unlink()
                    yield f"{table}: was cut off by a kill; removed"


def is_json(path: Path) -> bool:
    """Whether a file holds a JSON object, or is not there."""
    try:
        return not path.exists() or isinstance(json.loads(path.read_bytes()), dict)
    except ValueError:
        return False


def heal_lock_files(repo: Repo) -> Iterator[str]:
    """Move each dvc.lock that DVC cannot read aside, and bring the committed one back."""
    for folder, folders, names in repo.dvcignore.walk(repo.fs, repo.root_dir):
        folders[:] = [name for name in folders if not repo.scm.is_ignored(f"{folder}/{name}/")]
        path = Path(folder, LOCK_FILE)
        if {LOCK_FILE, PROJECT_FILE} <= {*names} and not is_readable(repo, path):
            with repo.lock:
                if not is_readable(repo, path):
                    yield from replace(path)


def is_readable(repo: Repo, path: Path) -> bool:
    """Whether DVC can read a dvc.lock, or refuses to because git ignores it."""
    try:
        Lockfile(repo, f"{path}").load()
    except FileIsGitIgnored:
        return True
    except (DvcException, ValueError):
        return False
    return True


def replace(path: Path) -> Iterator[str]:
    """Replace a dvc.lock with the committed one, unless it is that, or has merge conflicts."""
    content, committed = path.read_bytes(), git(path.parent, "cat-file", "blob", "HEAD:./dvc.lock")
    if content != committed and not re.search(rb"^<<<<<<< ", content, re.M):
        path.replace(f"{path}.damaged")
        if committed:
            path.write_bytes(committed)
        cure = "the committed one is back" if committed else "git has none"
        yield f"{path}: was cut off by a kill; moved to dvc.lock.damaged, and {cure}"


def git(folder: str | Path, *words: str) -> bytes:
    """Return what git prints in a folder, or nothing if it fails."""
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, check=False).stdout


if __name__ == "__main__":
    try:
        main(sys.argv[1:] or ["."])
    except DvcException as error:
        sys.exit(f"heal: {' '.join(str(error).split())}")
