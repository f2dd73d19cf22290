"""The model registry: git's tags decide, and MLflow shows them.

It imports `rows`, `project`, `store` and `pipeline`.
"""
