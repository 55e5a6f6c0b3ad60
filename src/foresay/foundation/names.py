"""Names that stand for what comes with foresay. Any other name of a model is a folder, a file or a hub id."""

NANO = "nano"
"""The embedded model: base and adapter."""
SMOLLM2 = "smollm2"
"""SmolLM2-135M-Instruct: the base comes in a Python package (`models/base/wheel.py`), the adapter with foresay."""
NAMED = (SMOLLM2, NANO)
OWN_LAYOUTS: set[str] = set()
"""Layouts that this process added to those of foresay, with `add_layout` of `models/layout/layout.py`."""
