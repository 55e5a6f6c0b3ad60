"""Which drafts stay, and which tokens come next: greedy or sampled."""
