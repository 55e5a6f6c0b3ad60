"""From files, folders and hub ids to tokens, examples and prompts."""
