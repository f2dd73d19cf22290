"""`dvc-mlflow report [BASE]`: what a pull request changes, as Markdown."""

import argparse
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

from ..errors import ProjectError, ToolError, plain, say
from ..project import Project
from ..project.changes import Changes, changes
from ..repository import ask, check_git, git, project_folder

_SAME = "It is what the code makes: the same bytes."


def run(given: argparse.Namespace) -> int:
    """Report on each project; return 1 if a committed dvc.lock is not what the code makes."""
    check_git()
    top = Path(os.fsdecode(git("rev-parse", "--show-toplevel")).strip("\n"))
    base, folders = _commit(given.base), _projects(top)
    strict = {project_folder()} & {*folders} or {*folders}
    found, wrong = [], False
    for folder in folders:
        with chdir(top / folder), Project() as project:
            change = changes(project, base)
        problem = _problem(top, change)
        wrong |= bool(problem) or bool(change.missing and folder in strict)
        if change.missing and not problem:
            cure = "run `dvc repro` or `dvc pull`"
            problem = f"Not checked, as files of {_few(change.missing)} are not here: {cure}."
        tables = {"metrics": change.metrics, "params": change.params}
        found.append({"folder": folder, **tables, "problem": problem})
    if given.json:
        say(json.dumps({"base": base, "ok": not wrong, "projects": found}, default=str))
    else:
        for line in _markdown(base, found):
            say(line)
    return wrong


def _commit(base: str) -> str:
    """Return the commit to compare with; raises `ToolError`."""
    remotes = ask("remote").split()
    remote = "origin" if "origin" in remotes or not remotes else remotes[0]
    default = ask("merge-base", "HEAD", f"refs/remotes/{remote}/HEAD") or "HEAD"
    found = ask("rev-parse", "--verify", "--quiet", f"{base or default}^{{commit}}")
    if not re.fullmatch("[0-9a-f]{40,64}", found):
        rule = "BASE must be a commit, a branch or a tag"
        raise ToolError(f"{rule}; received {base!r}" if base else "there is no commit yet")
    return found


def _projects(top: Path) -> list[str]:
    """Return the folders of the repository's DVC projects, "" being its root."""
    options = ("--cached", "--others", "--exclude-standard", "--deduplicate", "-z")
    listed = git("ls-files", *options, "--", ":(glob)**/.dvc/config", cwd=top)
    names = [os.fsdecode(name) for name in listed.split(b"\0") if name]
    folders = sorted(name.removesuffix("/config").removesuffix(".dvc") for name in names)
    found = [folder.rstrip("/") for folder in folders if (top / folder / ".dvc").is_dir()]
    if not found:
        raise ProjectError(f"{top}: has no DVC project")
    return found


def _problem(top: Path, change: Changes) -> str:
    """Return why a committed dvc.lock is not what the code makes, or ""."""
    if change.changed:
        return f"{_few(change.changed)}: not made by this code and these params. Run `dvc repro`."
    paths = [f"{path}" for path in change.results if path.is_relative_to(top)]
    options = ("status", "--porcelain", "--no-renames", "--untracked-files=all", "-z", "--")
    quiet = {"GIT_LITERAL_PATHSPECS": "1", "GIT_OPTIONAL_LOCKS": "0"}
    entries = git(*options, *paths, cwd=top, env=quiet).split(b"\0") if paths else []
    names = list(dict.fromkeys(os.fsdecode(entry[3:]) for entry in entries if entry))
    return f"`dvc repro` has changed {_few(names)}. Commit it." if names else ""


def _markdown(base: str, found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not any(each["metrics"] or each["params"] for each in found):
        yield from (f"No metric and no param has changed since {base[:7]}.", "")
    for each in found:
        of = f" of {_text(each['folder'])}/" if each["folder"] else ""
        for title, name in (("Metrics", "metric"), ("Params", "param")):
            if table := each[title.lower()]:
                yield from (f"### {title}{of}", "")
                yield f"| file | {name} | {base[:7]} | now | change |"
                yield "|---|---|---|---|---|"
                for file, values in sorted(table.items()):
                    for key, value in sorted(values.items()):
                        cells = (file, key, *map(value.get, ("old", "new", "diff")))
                        yield f"| {' | '.join(map(_text, cells))} |"
                yield ""
        yield from (f"### dvc.lock{of}", "", each["problem"] or _SAME, "")


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{', '.join(map(_text, names[:10]))}{more}"


def _text(value: object) -> str:
    """Return a value escaped for Markdown, as a pull request can put any text here."""
    if value is None:
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else plain(f"{value}")[:100]
    return re.sub(r"[^\w ./:,+=-]", lambda odd: f"&#{ord(odd[0])};", text)
