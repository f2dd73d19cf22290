"""Edit files of the user's checkout: read them, show a diff, ask, and write.

All new texts are known before the first file is written. Links are refused, as they may lead
elsewhere.
"""

import difflib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from .errors import ToolError, say
from .repository import checkout

_LARGE = 10_000_000  # bytes
Edits = Mapping[Path, tuple[str | None, str | None]]
"""The old and the new text of files; None where there is no file."""


def read(file: Path) -> str | None:
    """Return the text of a file of the checkout, byte for byte; raises `ToolError`."""
    try:
        if file.is_symlink() or not file.resolve().is_relative_to(checkout().resolve()):
            raise ToolError(f"{file}: is a link, which may lead elsewhere")
        if not file.exists():
            return None
        if not file.is_file() or file.stat().st_size > _LARGE:
            raise ToolError(f"{file}: is not a file, or is larger than {_LARGE // 1_000_000} MB")
        return file.read_bytes().decode(errors="surrogateescape")
    except OSError as error:
        raise ToolError(f"{file}: {error.strerror}") from None


def write(edits: Edits, *, yes: bool, dry_run: bool) -> bool:
    """Show what changes, and write it if the user says so; return whether it was written.

    Raises `ToolError`.
    """
    for file, (before, after) in edits.items():
        for line in _diff(file, before, after):
            say(line)
    if dry_run:
        return False
    if not yes:
        if not sys.stdin.isatty():
            raise ToolError("nothing was written: there is no terminal to ask at; add --yes")
        sys.stdout.flush()
        if _answer() != "y":
            raise ToolError("nothing was written")
    _replace(edits)
    return True


def _answer() -> str:
    try:
        return input("Write this? [y/N] ").strip()
    except EOFError:
        return ""


def _diff(file: Path, before: str | None, after: str | None) -> Iterator[str]:
    name = os.path.relpath(file, checkout())
    old, new = ((text or "").splitlines(keepends=True) for text in (before, after))
    start = "/dev/null" if before is None else f"a/{name}"
    end = "/dev/null" if after is None else f"b/{name}"
    for line in difflib.unified_diff(old, new, start, end, lineterm=""):
        yield line.rstrip("\r\n").expandtabs()
        if line[0] in " +-" and line[:3] not in ("---", "+++") and line[-1] not in "\r\n":
            yield r"\ No newline at end of file"


def _replace(edits: Edits) -> None:
    """Write all new files beside the old ones, then put each in the old one's place."""
    partial: dict[Path, Path] = {}
    try:
        for file, (_, after) in edits.items():
            if after is not None:
                partial[file] = file.with_name(f".{file.name}.{os.getpid()}.partial")
                with partial[file].open("xb") as opened:
                    opened.write(after.encode(errors="surrogateescape"))
                if file.exists():
                    shutil.copymode(file, partial[file])
        for file, (before, _) in edits.items():
            if read(file) != before:
                raise ToolError(f"nothing was written: {file} has changed meanwhile")
        for file in edits:
            if file in partial:
                partial[file].replace(file)
            else:
                file.unlink()
    except OSError as error:
        raise ToolError(f"{error.filename}: {error.strerror}; nothing was lost") from None
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
