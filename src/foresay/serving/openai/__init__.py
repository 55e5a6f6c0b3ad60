"""Our own server, with OpenAI's interface."""
