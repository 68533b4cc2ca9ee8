"""Methods that learn from text."""
