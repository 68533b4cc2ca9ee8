"""Methods that learn from time series."""
