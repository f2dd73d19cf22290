"""What the stages share; no module here imports a stage."""
