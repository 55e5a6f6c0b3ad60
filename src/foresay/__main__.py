"""`python -m foresay`."""

from foresay.cli import entry

entry()
