"""`record`: what the store lacks of the results that DVC and git have, brought to MLflow.

It imports `rows`, which makes rows of results, and `store`, which writes them; `follow` and the
commands call it.
"""
