"""The family `heads`: independent heads beside the base's own (paper B)."""
