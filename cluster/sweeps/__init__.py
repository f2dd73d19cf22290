"""What sweep.py on the driver and trial.py on a node are made of."""
