"""Where the rows of a call stand, and what each may see: geometry without a model."""
