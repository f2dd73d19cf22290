"""Results as rows: read from DVC and git, placed in the store, written there, and kept in git.

It imports `project`, `store` and `pipeline`. What is recorded live, later or from history goes
through here, so that it is the same.
"""
