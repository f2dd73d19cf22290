"""The user's shell, and how DVC starts it: with options by its name, so that it reads no settings.

In front of `dvc`, SHELL names the tool's own program, and a variable remembers the user's.
"""

from _collections_abc import Mapping, MutableMapping

_REMEMBERED = "DVC_MLFLOW_USER"
"""The variable with the user's own SHELL, as `SHELL=/bin/bash`; it is empty if SHELL is not set."""
_OPTIONS = {"bash": ["--noprofile", "--norc"], "zsh": ["--no-rcs"]}


def command(text: str, env: Mapping[str, str]) -> list[str]:
    """Return the command with which DVC lets the shell of an environment run a text."""
    shell = path(env)
    name = shell.rpartition("/")[2].lower()
    options = ["--no-config"] if name == "fish" and _is_new_fish(shell) else _OPTIONS.get(name, [])
    return [shell, *options, "-c", text]


def path(env: Mapping[str, str]) -> str:
    """Return the shell that DVC uses in an environment."""
    return env.get("SHELL") or "/bin/sh"


def replace(env: MutableMapping[str, str], program: str) -> None:
    """Let SHELL name a program, and remember the user's own; if that is done already, keep it."""
    if _REMEMBERED not in env:
        env[_REMEMBERED] = f"SHELL={env['SHELL']}" if "SHELL" in env else ""
    env["SHELL"] = program


def restore(env: MutableMapping[str, str]) -> None:
    """Let SHELL be the user's own again, or unset."""
    own = env.pop(_REMEMBERED, None)
    if own:
        env["SHELL"] = own.partition("=")[2]
    else:
        env.pop("SHELL", None)


def is_replaced(environ: bytes) -> bool:
    """Whether a process has a replaced SHELL; `environ` is its environment, as /proc has it."""
    return f"\0{_REMEMBERED}=".encode() in b"\0" + environ


def _is_new_fish(shell: str) -> bool:
    """Whether a fish knows the option `--no-config`; DVC finds out in the same way."""
    import re
    import subprocess

    try:
        said = subprocess.run([shell, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    version = re.search(r" (\d+)\.(\d+)", said.stdout)
    return version is not None and (int(version[1]), int(version[2])) >= (3, 3)
