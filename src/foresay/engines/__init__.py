"""Who answers prompts for `foresay data generate`: this process, vLLM, or the workers of a Ray cluster."""
