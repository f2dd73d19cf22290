"""The model as MLflow serves it, and the columns of its table."""

import pickle
from importlib.metadata import version

import mlflow.sklearn

COLUMNS = ["metrics.test/accuracy", "metrics.validation/accuracy", "params.train.passes"]


def serve(model, *, path, mlflow_model):
    mlflow.sklearn.save_model(
        pickle.loads(model.read_bytes()),
        path,
        mlflow_model=mlflow_model,
        pip_requirements=[f"{name}=={version(name)}" for name in ("scikit-learn", "skops")],
    )
