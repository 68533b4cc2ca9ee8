"""Methods that learn from tables."""
