"""What the next step processes: its layout, and which drafts hang together."""
