"""`dvc-mlflow sweep`: many experiments at once, on this machine or a Ray cluster.

It imports `record` and what that imports; Ray and Optuna are imported only here.
"""
