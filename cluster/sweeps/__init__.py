"""The parts of sweep.py: node.py runs on the nodes, the others on the driver."""
