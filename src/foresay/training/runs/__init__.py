"""What happens beside the steps of a run: decodes, the saved model, the log."""
