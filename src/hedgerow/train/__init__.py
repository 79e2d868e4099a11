"""Training: the weighted loss, optimisers, the loop, checkpoints, logs."""
