"""The project of one `dvc` process, which all its stages share."""

import os
from pathlib import Path

from ..pipeline.lineages import recorded
from ..pipeline.prefix import is_prefixed
from ..project import Project
from .request import Request


class Shared:
    """The project around the working directory; its methods raise `ProjectError`."""

    def __init__(self) -> None:
        self._project: Project | None = None
        self._recorded: frozenset[tuple[str, str]] | None = None

    def now(self) -> Project:
        """Return the project as it is now: only what has changed is read again."""
        if self._project is None or not self._project.read_again():
            if self._project is not None:
                self._project.close()
                self._project = None
            project = Project()
            project.keep()
            self._project = project
        return self._project

    def is_recorded(self, request: Request) -> bool:
        """Return whether a stage without the prefix is recorded; DVC is asked once."""
        if self._recorded is None:
            self._recorded = self._recorded_now()
        file, _, name = request.stage.rpartition(":")
        path = os.path.realpath(Path(request.home, file or "dvc.yaml"))
        return (os.path.dirname(path), name) in self._recorded  # noqa: PTH120

    def _recorded_now(self) -> frozenset[tuple[str, str]]:
        """Return the recorded stages: each one's folder and own name."""
        project, found = self.now(), set()
        root = os.path.realpath(project.root)
        for stage in recorded(project.pipeline()):
            if not is_prefixed(stage.command):
                folder, _, own = stage.group.rpartition("/")
                name = f"{own}@{stage.item}" if stage.item else own
                found.add((os.path.normpath(f"{root}/{folder}"), name))
        return frozenset(found)
