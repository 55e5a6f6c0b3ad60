"""How fast decoding is, measured or forecast."""
