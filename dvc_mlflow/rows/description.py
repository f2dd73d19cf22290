"""The description on a row's page, in Markdown: the commit, its author, commands, the way back."""

import re
from collections.abc import Mapping

from ..errors import masked, plain
from ..pipeline.row import UNCOMMITTED
from ..pipeline.row_stages import RowStages
from ..pipeline.tags import CHANGE, USER

_LONGEST, _MOST = 300, 10  # characters of a command; commands


def description(tags: Mapping[str, str], row_stages: RowStages, digits: str = "") -> str:
    """Return the description of a row with these tags, which can be restored by these digits."""
    stages = ((name, s.command) for name, s in row_stages.members.items() if s.command)
    commands = [f"- {_code(name)}: {_code(command)}" for name, command in stages]
    more = [f"- and {len(commands) - _MOST} more"] if len(commands) > _MOST else []
    way = f"`dvc-mlflow restore {digits}` brings back its code, params and files." if digits else ""
    return "\n\n".join(filter(None, [lead(tags), "\n".join(commands[:_MOST] + more), way]))


def lead(tags: Mapping[str, str]) -> str:
    """Return the first line: the commit of a row with these tags, and who has made it."""
    change = tags.get(CHANGE, "")
    start = "Not committed, made after " if change.startswith(UNCOMMITTED) else ""
    commit, _, subject = change.removeprefix(UNCOMMITTED).partition(" ")
    about = f"{start}**{commit}** {_text(subject)}" if commit else ""
    return f"{about}{', by ' if about else 'By '}{_text(tags[USER])}" if tags.get(USER) else about


def ended(status: str, why: str) -> str:
    """Return the first line of a row that has no result: how its stage has ended, and why."""
    what, _, said = masked(why).strip(": ").partition(": ")
    return f"**{status}**: {_text(what)}{': ' if said else ''}{_code(said) if said else ''}"


def _text(text: str) -> str:
    """Return a text of anybody's as it is: as code, Markdown makes no link or image of it."""
    return _code(text) if re.search(r"[^\w ,;:'()=+/.-]|_|\w[.@:]\w|//", text) else text


def _code(text: str) -> str:
    """Return the first line of a text as Markdown's code, whatever is in it."""
    line, *more = text.strip().splitlines() or [""]
    line = plain(line[:_LONGEST]) + (" …" if more or len(line) > _LONGEST else "")
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"
