"""Run tools/heal.py, and see what it repairs."""

import os
import runpy
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from support.clone import ROOT, Clone, Done, environment

SCRIPT = ROOT / "tools/heal.py"


def run_heal(project: Clone, *folders: str) -> Done:
    """Run tools/heal.py in this process: it spares the second in which that imports DVC."""
    command, out, error = [f"{SCRIPT}", *folders], StringIO(), ""
    with (
        patch("sys.argv", command),
        patch.dict(os.environ, environment(), clear=True),
        chdir(project.path),
        redirect_stdout(out),
    ):
        try:
            runpy.run_path(command[0], run_name="__main__")
        except SystemExit as exit_:  # Python prints its reason
            error = f"{exit_}\n"
    return Done(command, int(bool(error)), out.getvalue(), error)


def heal(project: Clone, *folders: str) -> list[str]:
    """Run tools/heal.py without an error, and return what it says."""
    done = run_heal(project, *folders)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


def healed(project: Clone, *folders: str) -> list[str]:
    """Return the files that tools/heal.py names."""
    paths = [line.split(": ")[0] for line in heal(project, *folders)]
    return [path.removeprefix(f"{project.path}/") for path in paths]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder, except git's and those in .dvc/tmp."""
    return {
        f"{path.relative_to(folder)}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not {".git", "tmp"} & {*path.relative_to(folder).parts}
    }
