"""`dvc-mlflow sweep`: many experiments at once, on this machine or a Ray cluster.

It imports `rows` and what that imports; Ray, Optuna and Matplotlib are imported only here.
"""
