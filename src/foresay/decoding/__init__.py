"""Saying several tokens at once: plan, see, verify, keep, draft."""
