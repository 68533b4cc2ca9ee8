"""Methods that learn from the nodes of one graph."""
