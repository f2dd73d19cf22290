"""Bring a result's files into a checkout of its own: DVC's cache, its remotes, and md5s."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dvc.config import Config
from dvc.config_schema import RelPath
from dvc.exceptions import DvcException

from ..pipeline import Pipeline, Stage
from .opened import errors_reported
from .running import Project


def share(top: Path, folder: Path, dvc: Path) -> None:
    """Let a project below `folder` use the cache and the remotes of the same one below `top`.

    Both are roots of checkouts; `dvc` is the project's `.dvc`. Settings that are local to the main
    repository count, too.
    """
    own, dvc = dvc, top / dvc.relative_to(folder)
    known = Config(str(dvc), validate=False)
    known["cache"].setdefault("dir", RelPath(str(dvc / "cache")))
    with Config(str(own), validate=False).edit("local") as config:
        config["cache"], config["remote"] = known["cache"], known["remote"]
        config["core"] = {k: v for k, v in known["core"].items() if k == "remote"}


def restore(
    project: Project,
    pipeline: Pipeline,
    stages: Sequence[Stage],
    small: Iterable[tuple[str, bytes]],
) -> list[str]:
    """Bring in the outputs of these stages as dvc.lock has them; return what is wrong.

    They come from DVC's cache, from `small` outputs that git has kept, or from DVC's remote.
    """
    repo = project._repo
    names = {stage.name for stage in stages}
    with errors_reported():
        own = [s for s in repo.index.stages if s.cmd and project._name(s) in names]
        data = [s for s in repo.index.stages if not s.cmd and _is_read(s, own)]
        targets = [stage.addressing for stage in (*own, *data)]
        _give(repo, small)
        for out in (out for stage in own for out in stage.outs if out.use_cache and out.exists):
            for path in _wrong(out):
                Path(path).unlink(missing_ok=True)  # DVC would take it for what it has put there
        _check_out(repo, targets)
        lacking = [out for stage in (*own, *data) for out in stage.outs if not out.exists]
        looked = "in DVC's cache"
        if lacking:
            looked += _fetch(repo, targets)
            _check_out(repo, targets)
    outs = [out for stage in (*own, *data) for out in stage.outs]
    problems = [problem for out in outs for problem in _problems(out, looked)]
    if not problems:
        with errors_reported():
            changes = repo.status(targets)
        problems = [f"`dvc status` of {name}: {what}" for name, what in changes.items()]
    return problems


def _is_read(data: Any, stages: Sequence[Any]) -> bool:
    """Whether a .dvc file tracks something that one of the stages reads."""
    deps = [dep.fs_path for stage in stages for dep in stage.deps]
    return any(
        dep == out.fs_path or dep.startswith(f"{out.fs_path}{os.sep}") or _is_inside(out, dep)
        for out in data.outs
        for dep in deps
    )


def _is_inside(out: Any, folder: str) -> bool:
    return bool(out.fs_path.startswith(f"{folder}{os.sep}"))


def _check_out(repo: Any, targets: Sequence[str]) -> None:
    with suppress(DvcException):  # what is missing is found by its md5
        repo.checkout([*targets], force=True, allow_missing=True)


def _fetch(repo: Any, targets: Sequence[str]) -> str:
    """Fetch from DVC's remote; return where that looked."""
    remote = repo.config["core"].get("remote")
    if not remote:
        return ", and there is no default DVC remote"
    try:
        repo.fetch([*targets])
    except Exception as error:  # whatever a remote's library raises
        return f" and in the DVC remote {remote!r} ({' '.join(str(error).split())[:200]})"
    return f" and in the DVC remote {remote!r}"


def _problems(out: Any, looked: str) -> list[str]:
    """Return what is missing of an output, or differs from dvc.lock, one line each."""
    path = os.path.relpath(out.fs_path, out.repo.root_dir)
    md5 = out.hash_info.value if out.hash_info else ""
    if not out.exists:
        cure = "pull it where it still is, or run `dvc repro` in this folder"
        return [f"{path} (md5 {md5}) is missing: it is not {looked}; {cure}"]
    if out.hash_info.isdir and out.use_cache and out.get_obj() is None:
        return [f"{path} (md5 {md5}): the list of its files is not {looked}"]
    found = []
    for file, (here, wanted) in _wrong(out).items():
        cached = out.cache.oid_to_path(wanted) if out.use_cache else ""
        cure = f"; delete {cached} and restore again" if cached and Path(cached).exists() else ""
        name = os.path.relpath(file, out.repo.root_dir)
        found.append(f"{name} has the md5 {here}, dvc.lock has {wanted}{cure}")
    return found


def _wrong(out: Any) -> dict[Path, tuple[str, str]]:
    """Return the files of an output that differ from dvc.lock: their md5s here, and there.

    DVC itself does not notice: it trusts that a write-protected file in its cache is intact.
    """
    files = [((), out.hash_info)]
    if out.hash_info.isdir:
        tree = out.get_obj() if out.use_cache else None
        files = [(key, info) for key, _, info in tree or ()]
    found = {}
    for key, info in files:
        file = Path(out.fs_path, *key)
        here = md5_of(file) if file.is_file() else "nothing"
        if here != info.value and out.hash_name == "md5":
            found[file] = (here, str(info.value))
    return found


def _give(repo: Any, small: Iterable[tuple[str, bytes]]) -> None:
    """Add small outputs to DVC's cache where it lacks them."""
    for oid, content in small:
        target = Path(repo.cache.local.oid_to_path(oid))
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if md5 == oid.removesuffix(".dir") and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f"{target.name}.{os.getpid()}")
            partial.write_bytes(content)
            partial.chmod(0o444)
            partial.replace(target)


def md5_of(file: Path) -> str:
    """Return the md5 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "md5").hexdigest()
