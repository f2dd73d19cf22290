"""The stage that DVC is running: what it reads, and its result before DVC writes it down."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvc.dependency import ParamsDependency
from dvc_data.hashfile.hash import hash_file

from ..errors import ProjectError
from ..tables import flatten
from .definitions import Definitions
from .opened import errors_reported, parse


class Project(Definitions):
    """The DVC project around the working directory; raises `ProjectError`."""

    def begin(self, address: str, folder: str) -> str:
        """Return the name of the stage that DVC runs in a folder, as `DVC_STAGE` calls it.

        From now on its params are those that it reads, not those in dvc.lock. The address is
        relative to the folder that `dvc` was started in, which only DVC knows.
        """
        file, _, own = address.rpartition(":")
        with errors_reported():
            named = [s for s in self._repo.index.stages if getattr(s, "name", None) == own]
            here = [s for s in named if os.path.realpath(s.wdir) == folder]
            same = [s for s in here if s.path.endswith(file.lstrip("./") or "dvc.yaml")]
            if not (same or here):
                raise ProjectError(f"DVC has no stage {own!r} in {folder}")
            self._running = (same or here)[0]
            for dep in self._running.params:
                dep.hash_info = dep.get_hash()
        return self._name(self._running)

    def inputs(self, began: int = 0, params: str = "") -> dict[str, object]:
        """Return what the running stage reads: md5s by path, and the params' values by file.

        DVC remembers the md5s, so it does not hash the files again. What has changed since the
        stage `began` (in ns) is None, unless its content is what DVC knew before. `params` is the
        text of the params.yaml in the stage's folder when it began, if there was one.
        """
        found: dict[str, object] = {}
        with errors_reported():
            for dep in self._running.deps:
                path = self._path(dep)
                if isinstance(dep, ParamsDependency):
                    own = params and dep.fs_path == str(Path(self._running.wdir, "params.yaml"))
                    text = params if own else Path(dep.fs_path).read_text()
                    values = flatten(parse(text, dep.fs_path) or {})
                    found[path] = {k: v for k, v in values.items() if _is_among(k, dep.params)}
                elif dep.fs.protocol == "local":
                    before = self._known_before(dep, began) if began else {}
                    found[path] = dep.get_hash().value if dep.exists else ""
                    locked = dep.hash_info.value if dep.hash_info else None
                    if found[path] != locked and any(
                        hash_file(f, dep.fs, dep.hash_name, self._repo.state)[1].value != md5
                        for f, md5 in before.items()
                    ):
                        found[path] = None
        return found

    def finish(self) -> None:
        """Hash the outputs of the running stage, as DVC will do next: it then finds them hashed."""
        with errors_reported():
            for item in (*self._running.outs, *self._running.deps):
                if isinstance(item, ParamsDependency):
                    continue
                odb = item.cache if item.is_in_repo and item.use_cache else item.local_cache
                options = {"ignore": item.dvcignore, "dry_run": not item.use_cache}
                _, item.meta, item.obj = item._build(
                    odb, item.fs_path, item.fs, item.hash_name, no_progress_bar=True, **options
                )
                item.hash_info = item.obj.hash_info
        self._has_finished = True

    def lacks_outputs(self) -> bool:
        """Whether the running stage has not written all its outputs; DVC says which."""
        return not all(out.exists for out in self._running.outs)

    def holds(self, name: str) -> bool:
        """Whether DVC would not run a stage again: its command, params and inputs are as locked."""
        with errors_reported():
            stage = next(s for s in self._repo.index.stages if s.cmd and self._name(s) == name)
            changed = getattr(stage, "cmd_changed", False) or stage.always_changed
            return not (changed or any(dep.workspace_status() for dep in stage.deps))

    def _known_before(self, dep: Any, began: int) -> dict[str, str]:
        """Return the files of an input that changed since then, with the md5s that DVC knew."""
        found, walk = {}, self._repo.dvcignore.walk
        folders = walk(dep.fs, dep.fs_path) if dep.isdir() else [(dep.fs_path, [], [""])]
        for folder, _, names in folders:
            for name in names:
                file = Path(folder, name)
                # The clock of files is coarse.
                if file.exists() and file.stat().st_ctime_ns >= began - 20_000_000:
                    entry = json.loads(self._repo.state.hashes.get(str(file)) or "{}")
                    found[str(file)] = entry.get("hash_info", {}).get("md5", "")
        return found


def _is_among(key: str, declared: Sequence[str]) -> bool:
    """Whether a stage's params, which are keys or sections, include a key."""
    return not declared or any(key == name or key.startswith(f"{name}.") for name in declared)
