"""What a step learns: batches, passes and losses of each family."""
