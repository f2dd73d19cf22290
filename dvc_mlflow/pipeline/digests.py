"""By which digests results are known: a function of dvc.yaml and dvc.lock alone.

Never does it depend on the order in which stages ran. Recording after the fact and while a stage
runs use the same functions.
"""

import hashlib
import json
from collections.abc import Sequence

from .stages import Pipeline, Stage


def result_digests(pipeline: Pipeline) -> tuple[dict[str, str], dict[str, str]]:
    """Return the digest of each stage's result, and why the other stages have none.

    A stage has none if dvc.lock has no entry for it, if what it has read is not what the stages
    upstream have written since, or if one of those has none.
    """
    found, digests = locked_digests(pipeline), dict[str, str]()
    reasons: dict[str, str] = {}
    for stage in pipeline.stages.values():
        outdated = () if stage.frozen else [dep for dep in stage.deps if dep.outdated]
        lacking = [name for name in pipeline.makers(stage) if name not in digests and stage.command]
        if not stage.has_result:
            reasons[stage.name] = "dvc.lock has no result of it"
        elif lacking:
            reasons[stage.name] = f"stage {lacking[0]}, upstream of it, must run first"
        elif outdated:
            by = f"{' and '.join(outdated[0].makers)} has written"
            reasons[stage.name] = f"it has read a different {outdated[0].path} than {by}"
        else:
            digests[stage.name] = found[stage.name]
    return digests, reasons


def locked_digests(pipeline: Pipeline) -> dict[str, str]:
    """Return the digest of each stage that dvc.lock has, and all that are upstream of it.

    Unlike `result_digests`, it includes those that have read something else than the stages
    upstream have written since. Recording and restoring both know a result by this digest.
    """
    digests: dict[str, str] = {}
    for stage in pipeline.stages.values():
        # What no stage makes lies beside the last stages, and does not come from them.
        makers = pipeline.makers(stage) if stage.command else ()
        if stage.has_result and all(name in digests for name in makers):
            above = sorted(digests[name] for name in makers)
            digests[stage.name] = _digest(pipeline.folder, stage, above)
    return digests


def _digest(folder: str, stage: Stage, above: Sequence[str]) -> str:
    """Return the identity of a result: its params and outputs, and those of all stages upstream.

    Neither code nor the command counts: if they make the same bytes, it is the same result.
    """
    text = f"[{json.dumps(folder)}, {stage.content}, {json.dumps(above)}]"
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
