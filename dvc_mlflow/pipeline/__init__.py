"""What DVC declares, and what a row is: plain values and pure functions.

It imports nothing but the standard library, and nothing of the other rooms, which all may import
it. A row in MLflow is a function of what is here: change it only on purpose, as rows of older
versions must be found again.
"""
