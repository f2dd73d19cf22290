"""What is learned: params, sequences and data sets. NumPy, PyYAML and voluptuous only."""
