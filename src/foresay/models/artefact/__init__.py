"""The saved folder: its files, fingerprints and card, and exports of it."""
