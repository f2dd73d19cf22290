"""Repair what a killed `dvc` or git leaves behind: `make heal`, which `make repro` runs first.

DVC writes dvc.lock and its lock tables in place, git leaves index.lock behind, and DVC restores a
damaged object from its cache again and again. Before a file that DVC writes in place is repaired,
it is checked again under its writer's lock, so no intact file is touched. Stale locks are removed,
damaged files are moved aside, and dvc.lock is restored from git.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "stages"))

import psutil
from dvc.dvcfile import LOCK_FILE, Lockfile
from dvc.exceptions import DvcException
from dvc.lock import make_lock
from dvc.repo import Repo

from bridge.run.files import md5, replacing


def main(folder: str = ".") -> None:
    """Repair the DVC project in a folder, and print what was wrong."""
    try:
        repo = Repo(folder)
        for tmp in (Path(repo.tmp_dir), Path(repo.tmp_dir, "exps")):
            repair_lock_table(tmp)
        repair_index(Path(repo.root_dir))
        repair_lock_file(repo)
        for path, oid in outputs(repo):
            repair_object(path, Path(repo.cache.local.oid_to_path(oid)), oid)
    except DvcException as error:
        sys.exit(f"{error}")


def repair_lock_table(folder: Path) -> None:
    """Remove DVC's lock table if it is not valid JSON: the holders of its locks are dead."""
    table = folder / "rwlock"
    if not _is_json(table):
        with make_lock(str(folder / "rwlock.lock"), tmp_dir=str(folder)):
            if not _is_json(table):
                table.unlink()
                print(f"{table}: was truncated by a kill; removed")


def repair_lock_file(repo: Repo) -> None:
    """Restore dvc.lock from git if DVC cannot read it."""
    path = Path(repo.root_dir, LOCK_FILE)
    if not _is_lock_file(repo, path):
        with make_lock(str(Path(repo.tmp_dir, "lock")), tmp_dir=repo.tmp_dir):
            if not _is_lock_file(repo, path):
                path.replace(path.with_name(f"{LOCK_FILE}.damaged"))
                command = ["git", "show", f"HEAD:./{LOCK_FILE}"]
                done = subprocess.run(command, cwd=path.parent, capture_output=True, check=False)
                cure = "moved aside, as git has none"
                if done.returncode == 0:
                    with replacing(path) as partial:
                        partial.write_bytes(done.stdout)
                    cure = "restored the committed one"
                print(f"{path}: was truncated by a kill; {cure}")


def repair_index(root: Path) -> None:
    """Remove git's index.lock if no process running in this checkout can have made it."""
    command = ["git", "rev-parse", "--git-path", "index.lock"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    path = root / done.stdout.strip()
    if done.stdout and path.exists() and not any(_uses_git(p, root) for p in _processes()):
        before = path.stat()
        time.sleep(1)
        if path.exists() and path.stat() == before:
            path.unlink()
            print(f"{path}: was left by a killed process; removed")


def repair_object(path: Path, cached: Path, oid: str) -> None:
    """Move a cached object aside if its md5 is not its name, and delete its copy at `path`."""
    if cached.is_file() and (content := md5(cached)) != oid.removesuffix(".dir"):
        if path.is_file() and md5(path) == content:
            path.unlink()
        cached.replace(cached.with_name(f"{cached.name}.damaged"))
        print(f"{cached}: is damaged; `dvc repro` or `dvc pull` brings {path} back")


def outputs(repo: Repo) -> Iterator[tuple[Path, str]]:
    """Yield each output in dvc.lock, and its md5."""
    path = Path(repo.root_dir, LOCK_FILE)
    stages = Lockfile(repo, str(path)).load().get("stages", {}) if path.exists() else {}
    dvc_yaml: dict[str, Any] = {stage.addressing: stage for stage in repo.index.stages}
    for name, entry in stages.items():
        folder = Path(dvc_yaml[name].wdir) if name in dvc_yaml else path.parent
        for out in entry.get("outs", []):
            yield folder / out["path"], out.get("md5", "")


def _is_json(path: Path) -> bool:
    try:
        return not path.exists() or isinstance(json.loads(path.read_text()), dict)
    except ValueError:
        return False


def _is_lock_file(repo: Repo, path: Path) -> bool:
    try:
        return not path.exists() or isinstance(Lockfile(repo, str(path)).load(), dict)
    except (DvcException, ValueError):
        return False


def _processes() -> Iterator[psutil.Process]:
    own = [psutil.Process(), *psutil.Process().parents()]
    yield from (process for process in psutil.process_iter() if process not in own)


def _uses_git(process: psutil.Process, root: Path) -> bool:
    try:
        command = Path(process.name()).name, *process.cmdline()[:3]
        known = any("git" in Path(word).name or "dvc" in Path(word).name for word in command)
        return known and Path(process.cwd()).is_relative_to(root)
    except psutil.Error:
        return False


if __name__ == "__main__":
    for folder in sys.argv[1:] or ["."]:
        main(folder)
