"""What every method shares: mesh, step, optimiser, checkpoints, loop."""
