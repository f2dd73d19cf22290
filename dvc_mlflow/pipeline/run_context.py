"""How a script's own MLflow runs are known: `dvc-mlflow run` lets MLflow give them a tag."""

import json
from collections.abc import Mapping, MutableMapping
from typing import NamedTuple, Self

from .tags import TOKEN

CONTEXT = "MLFLOW_RUN_CONTEXT"
"""MLflow's variable with tags for each run that a process starts, as JSON."""
EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"
_READ = ("MLFLOW_TRACKING_URI", EXPERIMENT, "MLFLOW_EXPERIMENT_ID", CONTEXT)


class Token(NamedTuple):
    """What the tag says: by which process, and for which stage."""

    process: str
    """The mark of a stage's `dvc`, or of what stands for several: the command of `run`."""
    stage: str = ""
    """`DVC_STAGE`, if `run` stands before the command of a stage."""
    sets_experiment: bool = False
    """Whether `run` has set `MLFLOW_EXPERIMENT_NAME`, which is the user's own otherwise."""

    @property
    def text(self) -> str:
        """The tag's value."""
        return f"{self.process} {'+' if self.sets_experiment else '-'} {self.stage}".strip()

    @classmethod
    def of(cls, text: str) -> Self:
        """Return what a tag's value says."""
        process, _, rest = text.partition(" ")
        sign, _, stage = rest.partition(" ")
        return cls(process, stage, sign == "+")


def token_of(env: Mapping[str, str]) -> Token | None:
    """Return the token in an environment, if there is one."""
    text = _tags(env).get(TOKEN)
    return Token.of(text) if isinstance(text, str) and text else None


def with_token(env: Mapping[str, str], token: Token) -> str:
    """Return the value of `CONTEXT` with a token, beside the tags that are there."""
    return json.dumps({**_tags(env), TOKEN: token.text})


def note_for_stages(env: Mapping[str, str], variables: Mapping[str, str], token: Token) -> str:
    """Return lines for the script `dvc-mlflow`, which sets variables for a `dvc`'s other stages.

    They are the `dvc`, the values that `run` has read and set, and the context up to the stage.
    Return "" if this is no stage, or a shell could not read or complete them.
    """
    read = "|".join(env.get(name, "") for name in _READ)
    context, _, end = variables[CONTEXT].rpartition(token.stage or "}")
    address, experiment = variables["MLFLOW_TRACKING_URI"], variables.get(EXPERIMENT, "")
    lines = [token.process, read, address, experiment, context]
    is_plain = end == '"}' and not any("\n" in line for line in lines)
    return "".join(f"{line}\n" for line in lines) if is_plain else ""


def leave_run(env: MutableMapping[str, str]) -> None:
    """Remove from an environment what `run` has set for scripts, which the tool itself is not."""
    if token := token_of(env):
        if token.sets_experiment:
            env.pop(EXPERIMENT, None)
        env[CONTEXT] = json.dumps({k: v for k, v in _tags(env).items() if k != TOKEN})


def _tags(env: Mapping[str, str]) -> dict[str, object]:
    try:
        return dict(json.loads(env.get(CONTEXT) or "{}"))
    except (ValueError, TypeError):
        return {}
