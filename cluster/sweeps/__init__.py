"""The parts of sweep.py, which runs on the driver, and of trial.py, which runs on nodes."""
