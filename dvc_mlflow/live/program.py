"""The program that `dvc-mlflow dvc` lets DVC start in place of the user's shell: shell.py."""

import os
import sys
from pathlib import Path
from shlex import quote

from .. import own_files

_CODE = """import sys
sys.path.append({folder!r})
from dvc_mlflow.live.shell import main
sys.path.pop()
main()"""
_TEXT = """#!/bin/sh
exec {python} -I -S -c {code} "$@"
"""


def install(folder: Path) -> str:
    """Make the program in a folder; return its path, or "" if nothing can be run from there.

    DVC starts it without a shell, and the first line of a script can have neither spaces in its
    interpreter's path nor two options.
    """
    code = _CODE.format(folder=f"{Path(__file__).parents[2]}")
    text = os.fsencode(_TEXT.format(python=quote(sys.executable), code=quote(code)))
    path = folder / "dvc-mlflow-shell"
    try:
        if path.is_symlink() or not path.exists() or path.read_bytes() != text:
            own_files.write(f"{path}", text, 0o755)  # another `dvc` may be at work with it
    except OSError:
        return ""
    return f"{path}" if os.access(path, os.X_OK) else ""
