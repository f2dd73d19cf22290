"""The MLflow store: all that touches MLflow's internals, its database and its server.

It imports `pipeline` and the modules at the top. New versions of MLflow may break it, so the tests
marked `versions` run with the oldest and the newest.
"""

from . import mlflow_settings  # noqa: F401  (before any module that imports MLflow)
