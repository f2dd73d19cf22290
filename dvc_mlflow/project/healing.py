"""Repair what a killed `dvc` leaves behind, and damaged files in its cache.

DVC writes dvc.lock and its lock tables in place. They are checked again under their writer's lock
before they are repaired, so nothing intact is touched. A damaged file in the cache is moved aside,
because DVC would restore it again and again.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from dvc.dvcfile import LOCK_FILE, PROJECT_FILE, Lockfile
from dvc.exceptions import DvcException
from dvc.lock import make_lock

from ..errors import ProjectError
from ..git import checkout, git
from .hashing import file_md5
from .opened import errors_reported
from .running import Project


def heal(project: Project) -> Iterator[str]:
    """Repair a project; yield what was wrong and what was done, one line each."""
    repo = project._repo
    with errors_reported():
        for folder in (Path(repo.tmp_dir), Path(repo.tmp_dir, "exps")):
            yield from _heal_lock_table(repo, folder)
        for file in _lock_files(project):
            yield from _heal_lock_file(repo, file)
        healed: set[Path] = set()
        for path, cached, md5 in _cached_files(project):
            if cached not in healed:
                healed.add(cached)
                yield from _heal_cached(project, path, cached, md5)


def _heal_lock_table(repo: Any, folder: Path) -> Iterator[str]:
    """Remove DVC's table of locks if it is not JSON: its writer was killed."""
    table = folder / "rwlock"
    if not _is_json(table):
        with _lock(repo, folder, "rwlock.lock"):
            if not _is_json(table):
                table.unlink()
                yield f"{table}: was cut off by a kill; removed"


def _heal_lock_file(repo: Any, path: Path) -> Iterator[str]:
    """Restore dvc.lock from git if DVC cannot read it."""
    if not _is_lock_file(repo, path):
        with _lock(repo, Path(repo.tmp_dir), "lock"):
            if not _is_lock_file(repo, path):
                yield from _replace(path)


def _replace(path: Path) -> Iterator[str]:
    """Replace a damaged dvc.lock with the committed one, unless it is that, or has conflicts."""
    content = path.read_bytes()
    try:
        committed = git(
            "cat-file", "blob", f"HEAD:{path.relative_to(checkout(path.parent))}", cwd=path.parent
        )
    except (ProjectError, OSError):
        committed = b""
    if content == committed or re.search(rb"^<<<<<<< ", content, re.M):
        return
    aside = path.with_name(f"{path.name}.damaged")
    if committed:
        with NamedTemporaryFile(dir=path.parent, delete=False) as partial:
            partial.write(committed)
        shutil.copymode(path, partial.name)
    path.replace(aside)
    if committed:
        Path(partial.name).replace(path)
    cure = "the committed one is back" if committed else "git has none"
    yield f"{path}: was cut off by a kill; moved to {aside.name}, and {cure}"


def _heal_cached(project: Project, path: Path, cached: Path, md5: str) -> Iterator[str]:
    """Move a file in DVC's cache aside if its md5 is not its name, and delete its copy at `path`.

    DVC would take the copy for a restored file. Anybody can have written the path in dvc.lock.
    """
    if cached.is_file() and (content := file_md5(cached)) != md5.removesuffix(".dir"):
        is_inside = path.parent.resolve().is_relative_to(project.root.resolve())
        if is_inside and path.is_file() and file_md5(path) == content:
            path.unlink()
        cached.replace(cached.with_name(f"{cached.name}.damaged"))
        yield f"{cached}: is damaged; moved aside; `dvc pull` or `dvc repro` brings {path} back"


def _lock_files(project: Project) -> Iterator[Path]:
    """Yield each dvc.lock that belongs to a dvc.yaml of the project."""
    repo = project._repo
    for folder, folders, names in repo.dvcignore.walk(repo.fs, repo.root_dir):
        folders[:] = [name for name in folders if not repo.scm.is_ignored(f"{folder}/{name}/")]
        if {LOCK_FILE, PROJECT_FILE} <= {*names}:
            yield Path(folder, LOCK_FILE)


def _cached_files(project: Project) -> Iterator[tuple[Path, Path, str]]:
    """Yield each file that DVC keeps: its path, its place in the cache, and its md5.

    For a folder that is first the list of its files, and then each of them.
    """
    for out in project._repo.index.outs:
        if not (out.use_cache and out.is_in_repo and out.hash_info and out.hash_name == "md5"):
            continue
        place, md5 = out.cache.oid_to_path, out.hash_info.value
        if re.fullmatch(r"[0-9a-f]{32}(\.dir)?", md5):
            yield Path(out.fs_path), Path(place(md5)), md5
            for key, _, info in (out.get_obj() or ()) if md5.endswith(".dir") else ():
                if re.fullmatch("[0-9a-f]{32}", info.value):
                    yield Path(out.fs_path, *key), Path(place(info.value)), info.value


def _lock(repo: Any, folder: Path, name: str) -> Any:
    """Return a lock of DVC's, of the kind that its settings choose."""
    hard = repo.config["core"].get("hardlink_lock", False)
    return make_lock(f"{folder / name}", tmp_dir=f"{folder}", hardlink_lock=hard)


def _is_json(path: Path) -> bool:
    try:
        return not path.exists() or isinstance(json.loads(path.read_bytes()), dict)
    except (ValueError, RecursionError):
        return False


def _is_lock_file(repo: Any, path: Path) -> bool:
    """Whether DVC can read a dvc.lock, even one that git ignores, which it refuses to use."""
    try:
        Lockfile(repo, f"{path}")._load_yaml()
    except (DvcException, ValueError, RecursionError):
        return False
    return True
