"""DVC's queue workers: those that plain `dvc` has started keep its environment."""

import json
from pathlib import Path

from .user_shell import is_replaced


def of_plain_dvc(root: Path) -> bool:
    """Whether a worker of a project's queue runs that `dvc-mlflow dvc` has not started."""
    return any(_is_plain(file) for file in (root / ".dvc" / "tmp" / "exps").glob("celery/*.json"))


def _is_plain(file: Path) -> bool:
    try:
        process = Path("/proc", f"{json.loads(file.read_text())['pid']}")
        is_worker = b"queue-worker" in (process / "cmdline").read_bytes()
        return is_worker and not is_replaced((process / "environ").read_bytes())
    except (OSError, ValueError, LookupError, TypeError):
        return False
