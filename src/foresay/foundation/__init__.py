"""What every room stands on: errors, files, machine, provenance."""
