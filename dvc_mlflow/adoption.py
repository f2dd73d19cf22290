"""What `init` and `deinit` change in a project's files."""

import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .editing import Change, Command, affected, changed, compose, locate, rewrite
from .errors import ProjectError, ToolError
from .pipeline import Stage
from .prefix import is_simple, is_taken
from .project import Project, parse
from .project.resolving import commands, is_kept
from .repository import checkout
from .workspace import Edits, read

_MARK = "# dvc-mlflow: MLflow's store, and what `dvc-mlflow restore` brings back"
_IGNORED = ("/mlflow.db*", "/mlartifacts/", "/restored/")
_Changes = Mapping[tuple[str, ...], Change]
"""The change of a command, by the stages that share it in one place."""


@contextmanager
def nesting_reported() -> Iterator[None]:
    """Raise `ProjectError` if a dvc.yaml is nested too deeply for DVC, or for this tool."""
    try:
        yield
    except RecursionError:
        raise ProjectError("dvc.yaml is nested too deeply") from None


def edit(project: Project, stages: Sequence[Stage], *, away: bool) -> tuple[Edits, dict[str, str]]:
    """Return how dvc.yaml and dvc.lock files change, and why some stages stay as they are.

    The prefix goes before the commands of these stages, or `away` from them.
    """
    edits: dict[Path, tuple[str | None, str | None]] = {}
    refused: dict[str, str] = {}
    for folder in dict.fromkeys(posixpath.dirname(stage.group) for stage in stages):
        groups = {_name(s): s.group for s in stages if posixpath.dirname(s.group) == folder}
        try:
            file = _File(project, project.root / folder / "dvc.yaml")
            found, reasons = file.edit(groups, away=away)
        except (ToolError, ValueError) as error:
            found, reasons = {}, dict.fromkeys(groups, f"{error}")
        edits |= found
        refused |= {groups[name]: reason for name, reason in reasons.items()}
    return edits, refused


def _name(stage: Stage) -> str:
    """Return a stage's name in its own dvc.lock."""
    own = posixpath.basename(stage.group)
    return f"{own}@{stage.item}" if stage.item else own


class _File:
    """A dvc.yaml, and the dvc.lock beside it."""

    def __init__(self, project: Project, file: Path) -> None:
        self._project, self._file, self._lock_file = project, file, file.with_suffix(".lock")
        self._text, self._lock = read(file) or "", read(self._lock_file) or ""
        self._document = parse(self._text, "dvc.yaml")
        self._commands: Mapping[str, Command] = commands(project, file, self._document)

    def edit(self, names: Collection[str], *, away: bool) -> tuple[Edits, dict[str, str]]:
        """Return how both change, and why some of the named stages or items stay as they are."""
        refused: dict[str, str] = {}
        changes: dict[tuple[str, ...], Change] = {}
        for stages in self._sharing():
            own = self._of(stages)
            if not own.keys() & {*names}:
                continue
            last = [text for command in own.values() for text in affected(command, True)]
            change = None if away else all(map(is_simple, last))
            if reason := _reason(own, names, change):
                refused |= dict.fromkeys(own.keys() & {*names}, reason)
            else:
                changes[stages] = change
        with suppress(ValueError, ProjectError):
            return self._edits(changes), refused
        good: dict[tuple[str, ...], Change] = {}
        for stages, change in changes.items():
            try:
                self._edits({stages: change})
                good[stages] = change
            except (ValueError, ProjectError) as error:
                refused |= dict.fromkeys(self._of(stages), f"{error}")
        return self._edits(good), refused

    def _sharing(self) -> list[tuple[str, ...]]:
        """Return all stages, in groups that share one command in one place, as by an anchor."""
        root = compose(self._text)
        found: dict[int, list[str]] = {}
        for stage in self._document.get("stages") or {}:
            found.setdefault(id(locate(root, self._keys(stage))), []).append(stage)
        return [*map(tuple, found.values())]

    def _keys(self, stage: str) -> tuple[str, ...]:
        is_loop = "do" in self._document["stages"][stage]
        return ("stages", stage, "do", "cmd") if is_loop else ("stages", stage, "cmd")

    def _of(self, stages: Collection[str]) -> dict[str, Command]:
        """Return the commands of these stages as DVC runs them, by stage or item."""
        known = self._commands.items()
        return {n: c for n, c in known if n in stages or n.rpartition("@")[0] in stages}

    def _edits(self, changes: _Changes) -> Edits:
        """Return how both change; raises an error if anything else would change or run."""
        locked = parse(self._lock, "dvc.yaml").get("stages") or {}
        wanted = dict(self._commands)
        in_yaml: dict[tuple[str, ...], Change] = {}
        in_lock: dict[tuple[str, ...], Change] = {}
        for stages, change in changes.items():
            in_yaml |= {self._keys(stage): change for stage in stages}
            for name, command in self._of(stages).items():
                wanted[name] = changed(command, change)
                if is_kept(name, command) and not is_kept(name, wanted[name]):
                    raise ValueError("DVC would break its long command at two spaces, and lose one")
                if locked.get(name, {}).get("cmd") == command:
                    in_lock["stages", name, "cmd"] = change
        text, lock = rewrite(self._text, in_yaml), rewrite(self._lock, in_lock)
        if commands(self._project, self._file, parse(text, "dvc.yaml")) != wanted:
            raise ValueError("the values in its command change how a shell reads it")
        found = {self._file: (self._text, text), self._lock_file: (self._lock, lock)}
        return {file: both for file, both in found.items() if both[0] != both[1]}


def _reason(own: Mapping[str, Command], names: Collection[str], change: Change) -> str:
    """Return why the command that these stages share stays as it is, or ""."""
    others = [name for name in own if name not in names]
    texts = [text for command in own.values() for text in affected(command, change)]
    if others:
        return f"{others[0]} has the same command, in the same place"
    if change is None and not all(map(is_taken, texts)):
        return "its shell text is quoted in an unusual way"
    return ""


def ignore_files(*, away: bool) -> Edits:
    """Return how the ignore files beside the store of this checkout change."""
    top, here = checkout(), Path.cwd()
    inside = [path for path in (here, *here.parents) if path.is_relative_to(top)]
    root = [top, *(path for path in inside if (path / ".dvc").is_dir())][-1]
    files = [root / ".gitignore"] if (top / ".git").exists() else []
    texts = {file: read(file) for file in (*files, root / ".dvcignore")}
    new = {file: (_shown if away else _hidden)(text) for file, text in texts.items()}
    return {file: (text, new[file]) for file, text in texts.items() if text != new[file]}


def _hidden(text: str | None) -> str | None:
    """Return an ignore file with the lines that it lacks."""
    old = text or ""
    lines = [line for line in _IGNORED if line not in map(str.strip, old.splitlines())]
    if not lines:
        return text
    end = "\r\n" if "\r\n" in old else "\n"
    block = end.join((_MARK, *lines))
    if text is None or old.endswith("\n"):
        return f"{old}{block}{end}"
    return f"{old}{end if old else ''}{block}"  # the last line still has no line end


def _shown(text: str | None) -> str | None:
    """Return an ignore file without the lines that `_hidden` has added, or None if it made it."""
    lines = "|".join(map(re.escape, _IGNORED))
    block = rf"{re.escape(_MARK)}(?:\r?\n(?:{lines}))*"
    old = text or ""
    if (without := re.sub(rf"(?:\r?\n|\A){block}\Z", "", old)) != old:
        return without
    without = re.sub(rf"^{block}\r?\n", "", old, flags=re.M)
    return text if without == old else without or None
