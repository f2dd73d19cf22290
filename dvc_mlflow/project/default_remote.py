"""The default DVC remote of a project: what it has, and what a trial brings there."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc.config import Config

from ..errors import ProjectError, masked
from .experiments import blame
from .project import Project


def configure(config: Mapping[str, Any]) -> None:
    """Give the project here what `Remote.config` returned in another clone, before it is opened."""
    Path(".dvc/config.local").unlink(missing_ok=True)  # may be for another remote
    with Config(".dvc").edit("local") as local:
        local.update(config)


class Remote:
    """The default DVC remote of a project; methods raise `ProjectError`, as it does without one."""

    def __init__(self, project: Project) -> None:
        self._repo = project.repo
        if not self._repo.config["core"].get("remote"):
            raise ProjectError("no DVC remote: `dvc remote add -d NAME URL` first")
        self._remote = self._repo.cloud.get_remote()
        fs, path = self._remote.fs, self._remote.path
        self.place = f"DVC remote {self._remote.name!r} ({masked(fs.unstrip_protocol(path))})"
        """What it is in a message."""

    def config(self) -> dict[str, Any]:
        """Return the config that another clone needs for it."""
        name, config = self._remote.name, self._repo.config["remote"]
        own = {"core": {"remote": name}, "remote": {name: config[name]}}
        return dict(json.loads(json.dumps(own, default=str)))  # a path as text

    def sign(self, name: str) -> None:
        """Write a small file, by which a node knows this remote."""
        # DVC itself makes a folder that is missing, as when a disk is not mounted.
        with self._named():
            self._remote.fs.pipe_file(self._remote.fs.join(self._remote.path, name), b"a sweep\n")

    def check_sign(self, name: str) -> None:
        """Raise `ProjectError` if the file is not there."""
        with self._named():
            if not self._remote.fs.exists(self._remote.fs.join(self._remote.path, name)):
                raise ProjectError("not that of the driver; is its disk mounted here?")

    def outputs(self) -> set[str]:
        """Return the md5s that belong there, of the commit that the project is at."""
        outs = (out for out in self._repo.index.outs if out.use_cache and out.can_push)
        return {out.hash_info.value for out in outs if out.hash_info and not out.remote}

    def lacking(self, md5s: Iterable[str]) -> set[str]:
        """Return those files and folders that are not there; DVC uploads a folder's list last."""
        missing = {*md5s}
        if self._remote.fs.version_aware or self._remote.worktree:
            return set()  # it has files by name, not by md5
        with self._named():
            for odb in (self._remote.odb, self._remote.legacy_odb):
                missing -= {*odb.list_oids_exists(sorted(missing))} if missing else set()
        return missing

    def push(self) -> None:
        """Push the files of the workspace."""
        with self._named():
            self._repo.push()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Turn whatever the remote's library raises into `ProjectError`."""
        try:
            yield
        except FileNotFoundError:
            raise ProjectError(f"{self.place}: it is not there: mount it, or make it") from None
        except Exception as error:
            said = getattr(error, "strerror", None) or blame(error)[1]  # without its files
            raise ProjectError(f"{self.place}: {said}") from None
