"""Record any DVC pipeline in MLflow: a row is a function of what DVC knows.

dvc.yaml says what a stage reads, which params it uses and which of its files are metrics, curves
or models; dvc.lock adds their md5s. So nothing is declared twice, and no script changes.
"""
