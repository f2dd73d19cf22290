"""The commands of a dvc.yaml that is not written yet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvc.parsing import DataResolver
from dvc.utils.serialize import dumps_yaml, parse_yaml

from .opened import errors_reported
from .running import Project


def commands(
    project: Project, file: Path, document: Mapping[str, Any]
) -> dict[str, str | list[str]]:
    """Return the commands that DVC would run if a dvc.yaml said this, by stage or item.

    Raises `ProjectError`.
    """
    repo = project._repo
    with errors_reported():
        resolver = DataResolver(repo, repo.fs.parent(f"{file}"), document)
        return {name: resolver.resolve_one(name)[name]["cmd"] for name in resolver.get_keys()}


def is_kept(name: str, command: str | list[str]) -> bool:
    """Whether a stage's command stays the same when DVC writes it to dvc.lock and reads it.

    DVC breaks long lines at two spaces, too, and loses one: such a stage would always run again.
    """
    lock = {"stages": {name: {"cmd": command}}}
    return bool(parse_yaml(dumps_yaml(lock), "dvc.lock") == lock)
