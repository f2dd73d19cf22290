"""What is learned: params, sequences and data sets. NumPy and pydantic only."""
