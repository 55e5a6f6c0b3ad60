"""Is accelerated output the base's own: greedy, sampled, and the base itself."""
