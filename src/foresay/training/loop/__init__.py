"""The loop of steps: trainer, processes, checkpoints, optimizers."""
