"""The default DVC remote of a project: what it has, and what clones need that nobody pushed."""

import json
import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from inspect import signature
from pathlib import Path, PurePath
from typing import Any

from dvc.config import Config
from dvc.exceptions import FileTransferError
from dvc.stage.cache import RunCacheNotSupported

from ..errors import ProjectError, masked
from ..git import names
from .project import Project


def configure(config: Mapping[str, Any]) -> None:
    """Give the project here what `Remote.config` returned in another clone, before it is opened."""
    Path(".dvc/config.local").unlink(missing_ok=True)  # may be for another remote
    with Config(".dvc").edit("local") as local:
        local.update(config)


class Remote:
    """The default DVC remote of a project; methods raise whatever its library raises.

    `place` names it. Raises `ProjectError` if there is none.
    """

    def __init__(self, project: Project) -> None:
        self._repo = project.repo
        if not project.remote:
            raise ProjectError("no DVC remote: `dvc remote add -d NAME URL` first")
        self._remote = self._repo.cloud.get_remote()
        fs, path = self._remote.fs, self._remote.path
        self.place = f"DVC remote {self._remote.name!r} ({masked(fs.unstrip_protocol(path))})"

    def config(self) -> dict[str, Any]:
        """Return the config that another clone needs for it."""
        name, config = self._remote.name, self._repo.config["remote"]
        own = {"core": {"remote": name}, "remote": {name: config[name]}}
        found: dict[str, Any] = json.loads(json.dumps(own, default=str))  # a path as text
        return found

    def sign(self, name: str) -> None:
        """Write a small file, by which other nodes know this remote."""
        # DVC itself makes a folder that is missing, as when a disk is not mounted.
        self._remote.fs.pipe_file(self._remote.fs.join(self._remote.path, name), b"a sweep\n")

    def is_signed(self, name: str) -> bool:
        """Whether the file is there."""
        return bool(self._remote.fs.exists(self._remote.fs.join(self._remote.path, name)))

    def unsign(self, name: str) -> None:
        """Remove the file."""
        self._remote.fs.remove(self._remote.fs.join(self._remote.path, name))

    def lacking(self, md5s: Iterable[str]) -> set[str]:
        """Return those files and folders that are not there; DVC uploads a folder's list last."""
        missing = {*md5s}
        if self._remote.fs.version_aware or self._remote.worktree:
            return set()  # it has files by name, not by md5
        for odb in (self._remote.odb, self._remote.legacy_odb):
            missing -= {*odb.list_oids_exists(sorted(missing))} if missing else set()
        return missing

    def push(self) -> None:
        """Push the files of the workspace, and the entries that are new in the run cache.

        An entry's outputs that git keeps are pushed as well, because other clones would reject it
        without them. Raises the cause of a failed transfer, or `FileNotFoundError` if a file is not
        there afterwards. For a process of its own: DVC's logs are changed.
        """
        repo, causes = self._repo, _Causes()
        try:
            repo.push()
            with suppress(RunCacheNotSupported):
                cache, there = repo.stage_cache, self._remote.legacy_odb
                # What is there stays. Older versions of DVC know no other way, and no such option.
                is_new = "force" in signature(cache.transfer).parameters
                options = {"force": False} if is_new else {}
                new = cache.transfer(repo.cache.legacy, there, **options)
                for objects in cache.get_used_objs(new).values():
                    repo.cloud.push(objects)
        except FileTransferError as error:
            raise next(iter(causes.errors), error) from None
        own = repo.used_objs(push=True).get(None, ())  # but for those that go to another remote
        if lacking := self.lacking(each.value for each in own):
            raise FileNotFoundError(f"{min(lacking)} is not there after the push")


class _Causes(logging.Handler):
    """Keeps the errors that DVC's transfers only log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[BaseException] = []
        logger = logging.getLogger("dvc_data")
        logger.setLevel(logging.ERROR)
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self.errors.append(record.exc_info[1])


def untracked(project: Project) -> list[str]:
    """Return the deps in the project that neither git nor DVC tracks, so that no clone has them."""
    index, root = project.repo.index, os.fspath(project.root)
    listed = names("ls-files", "-z", "--recurse-submodules", cwd=project.root)
    files = [PurePath(os.path.relpath(project.top / file, root)) for file in listed]
    tracked, made = {*files, *(up for file in files for up in file.parents)}, index.outs_trie
    deps = {dep.fs_path: dep for stage in index.stages if stage.cmd for dep in stage.deps}
    found = []
    for path, dep in deps.items():
        parts, own = dep.fs.parts(path), os.path.relpath(path, root)
        is_made = made.shortest_prefix(parts) or made.has_subtrie(parts)
        if dep.is_in_repo and PurePath(own) not in tracked and not is_made:
            found.append(own)
    return found


def inputs(project: Project) -> dict[str, str]:
    """Return the paths of what stages read of `.dvc` files, by md5; imports have their own source.

    What has a remote of its own is not asked for in the default one.
    """
    repo = project.repo
    read = [
        s for s in repo.index.graph if not (s.cmd or s.is_import) and repo.index.graph.in_degree(s)
    ]
    outs = [out for stage in read for out in stage.outs if out.use_cache and not out.remote]
    return {out.hash_info.value: os.path.relpath(out.fs_path, repo.root_dir) for out in outs}


def elsewhere(project: Project) -> set[str]:
    """Return the paths of outputs that do not go to the default remote."""
    outs = project.repo.index.outs
    return {project.path_of(out) for out in outs if out.remote or not out.can_push}
