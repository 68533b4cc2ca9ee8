"""Self-supervised pretraining in JAX and Flax: every method a pure function, one train step for all of them."""

__version__ = "0.1.0"
