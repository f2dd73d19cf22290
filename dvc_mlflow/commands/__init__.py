"""The commands of `dvc-mlflow`: one module each, with a function `run`."""
