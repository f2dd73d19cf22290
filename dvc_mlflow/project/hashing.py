"""Md5s as dvc.lock has them, but for how lines end.

Git may have changed the line endings of a text since, and a pre-commit hook its last line.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dvc_data.hashfile.hash import fobj_md5
from dvc_data.hashfile.tree import Tree

_MOST = 50_000_000
"""Bytes of a file that are read as a text."""


def _as_it_is(content: bytes) -> bytes:
    return content


def _as_unix(content: bytes) -> bytes:
    return content.replace(b"\r\n", b"\n")


def _as_windows(content: bytes) -> bytes:
    return _as_unix(content).replace(b"\n", b"\r\n")


_ENDINGS: tuple[Callable[[bytes], bytes], ...] = (_as_it_is, _as_unix, _as_windows)


def content_md5(content: bytes, name: str = "md5") -> str:
    """Return the md5 of a content by the algorithm that DVC calls `name`."""
    return str(fobj_md5(io.BytesIO(content), name=name))


def md5s(content: bytes, name: str) -> Iterator[str]:
    """Yield the md5 of a content, and those that a text has with other ends of lines.

    `end-of-file-fixer` of pre-commit ends the last line, which many programs do not.
    """
    is_text = b"\0" not in content[:8000]  # as git decides it
    yield from (content_md5(way(content), name) for way in (_ENDINGS if is_text else _ENDINGS[:1]))
    unended = content.removesuffix(b"\n").removesuffix(b"\r")
    if is_text and unended != content:
        yield from (content_md5(way(unended), name) for way in _ENDINGS)


def file_has_md5(file: Path, wanted: str, name: str) -> bool:
    """Whether a file has an md5, as it is or with other ends of lines; raises `OSError`."""
    if file_md5(file, name) == wanted:
        return True
    return file.stat().st_size <= _MOST and wanted in md5s(file.read_bytes(), name)


def file_md5(file: Path, name: str = "md5") -> str:
    """Return the md5 of a file by the algorithm that DVC calls `name`; raises `OSError`."""
    with file.open("rb") as opened:
        return str(fobj_md5(opened, name=name))


def listed(files: Mapping[str, bytes], wanted: str, name: str) -> Any:
    """Return DVC's list of a folder's files if its md5 is the wanted one, else None.

    The files are given by their paths in the folder, with their content.
    """
    for way in _ENDINGS if files else _ENDINGS[:1]:
        entries = [{"relpath": p, "md5": content_md5(way(c), name)} for p, c in files.items()]
        tree = Tree.from_list(entries, hash_name=name)
        tree.digest()
        if tree.hash_info.value == wanted:
            return tree
    return None
