"""What sweep.py on the driver and trial.py on a node are made of."""

METRICS = "data/metrics.json"
"""The metrics of a trial, which DVC leaves to git."""
