"""The base's own answers as training data: this process, vLLM or a Ray cluster gives them."""
