"""Names that stand for what comes with foresay."""

NANO = "nano"
"""The embedded model. Any other name of a model is a folder or a hub id."""
