"""What the next step processes: its layout, and how drafts are linked."""
