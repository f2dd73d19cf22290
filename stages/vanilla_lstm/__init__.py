"""The code that the stages share. No module here imports a stage."""
