"""What is learned: params, sequences and data sets. NumPy, pydantic and PyYAML only."""
