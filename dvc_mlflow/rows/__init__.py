"""Results as rows: read from DVC and git, and kept in git. MLflow is not known here.

It imports `project` and `pipeline`. What is recorded live, later or from history is the same `Row`.
"""
