"""Teaching the adapter: data, losses, the two-pass step and the loop around it."""
