"""A project that stays open while DVC runs its stages: only what has changed is read again."""

import posixpath
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ProjectError
from . import locks
from .definitions import Definitions
from .opened import errors_reported

_COARSE = 20_000_000  # ns; file times are no finer


class Kept(Definitions):
    """A project that can be read again."""

    def __init__(self, settings_of: Path | None = None, at: Path | None = None) -> None:
        super().__init__(settings_of, at)
        self._stages_of: dict[str, dict[str, Any]] = {}
        self._sources: dict[Path, bytes | None] = {}
        self._entries: dict[str, dict[str, locks.Entry]] = {}

    def keep(self) -> None:
        """Remember what the stages are read from, so that the project can be read again."""
        began = time.time_ns()
        with errors_reported():
            stages = [stage for stage in self._repo.index.stages if hasattr(stage, "name")]
        for stage in stages:
            name = f"{posixpath.splitext(self._relative(stage.path))[0]}.lock"
            self._stages_of.setdefault(name, {})[stage.name] = stage
        self._sources = {file: _content(file, began) for file in {*self._files_read()}}
        self._read_locks()

    def read_again(self) -> bool:
        """Read what has changed in dvc.lock; return False if anything else has changed.

        A stage that DVC has run has the hashes in dvc.lock again, not those of its files.
        """
        if any(_content(file) != content for file, content in self._sources.items()):
            return False
        try:
            self._read_locks()
        except ProjectError:  # DVC says what is wrong with a lock
            return False
        self._repo.scm._reset()
        self._running, self._has_finished = None, False
        self._hashed.clear()
        return True

    def entry(self, name: str) -> object:
        """Return what dvc.lock had of a stage when it was read last, or None."""
        stage = self._dvc_stage(name)
        own = f"{posixpath.splitext(self._relative(stage.path))[0]}.lock"
        return (self._locks or {}).get(own, {}).get(stage.name)

    def _read_locks(self) -> None:
        """Give the stages what is in dvc.lock, if it is not what they had."""
        self._locks = {}
        for name, stages in self._stages_of.items():
            before, text = self._entries.get(name, {}), _content(self.root / name) or b""
            now = locks.read(text.decode(errors="replace"), before, name)
            for own, stage in stages.items():
                if before.get(own) is not now.get(own) or stage is self._running:
                    entry = now.get(own)
                    locks.fill(stage, entry and entry.value, name)
                    self._forget(stage)
            self._entries[name] = now
            self._locks[name] = {own: entry.value for own, entry in now.items()}

    def _files_read(self) -> Iterator[Path]:
        """Yield the files that decide what the stages are, whether they exist or not."""
        yield from (self.root / name for name in (".dvcignore", ".dvc/config", ".dvc/config.local"))
        index = self._repo.index
        tops = (index._metrics, index._plots, index._params, index._artifacts)
        for path in {*(stage.path for stage in index.stages), *(p for top in tops for p in top)}:
            yield Path(path)
        yield from self._template_files()


def _content(file: Path, began: int = 0) -> bytes | None:
    r"""Return the content of a file, None if there is none; b"\0" if it changed after `began`."""
    try:
        if began and file.stat().st_ctime_ns >= began - _COARSE:
            return b"\0"
        return file.read_bytes()
    except OSError:
        return None
