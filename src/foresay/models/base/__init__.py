"""The pretrained model: loaded, checked, and driven as a guest."""
