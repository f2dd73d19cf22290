"""The commands of `dvc-mlflow`, one module each. They import any room, and none imports them."""
