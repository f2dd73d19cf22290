"""What DVC runs: stages, the files that they write whole or not at all, and params.yaml."""
