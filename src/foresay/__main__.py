"""`python -m foresay`."""

from foresay.cli.main import entry

entry()
