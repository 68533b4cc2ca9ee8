"""Methods that learn from many graphs."""
