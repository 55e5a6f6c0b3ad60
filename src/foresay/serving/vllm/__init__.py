"""The same model in vLLM: exported, described, started."""
