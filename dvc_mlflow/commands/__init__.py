"""The commands of `dvc-mlflow`, a module each, whose `run` carries it out."""
