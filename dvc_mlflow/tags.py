"""The tags of a run that describe its results: one for each stage, by its name in the row."""

from collections.abc import Mapping

BEGUN, COMPLETE = "begun.", "lock."
"""The digests of the results that a run is for, and, written last, of those that it has."""
TREE, KEPT = "tree.", "kept."
"""The git tree of each result, and the commit that keeps it."""


def tagged(tags: Mapping[str, str], start: str) -> dict[str, str]:
    """Return the tags that begin with `start`, by the rest of their keys: the stages' names."""
    return {key.removeprefix(start): value for key, value in tags.items() if key.startswith(start)}
