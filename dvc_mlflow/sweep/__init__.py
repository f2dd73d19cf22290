"""A sweep: node.py and trial.py run on the nodes, the others on the driver."""
