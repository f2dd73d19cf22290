"""The tags of a run that name results: by stage, or by their names in the row."""

from collections.abc import Mapping

BEGUN, COMPLETE = "begun.", "lock."
"""The digests of a run's results: what it is for, and, written last, has."""
TREE, KEPT = "tree.", "kept."
"""The git tree of each result, and the commit that keeps it."""


def tagged(tags: Mapping[str, str], start: str) -> dict[str, str]:
    """Return those of a run's tags that begin so, by what follows: the names of its stages."""
    return {key.removeprefix(start): value for key, value in tags.items() if key.startswith(start)}
