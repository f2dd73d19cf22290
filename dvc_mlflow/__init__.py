"""Record any DVC pipeline in MLflow: a row is a function of what DVC knows.

dvc.yaml says what a stage reads, which params made it and which of its files are metrics, curves
or models; dvc.lock says it with md5s. So nothing is said twice, and no script changes.
"""
