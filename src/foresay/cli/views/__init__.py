"""What the command line shows: bars, live views, coloured text, tables."""
