"""The wiring of a node: events -> rooms -> plan -> diff -> data plane."""
