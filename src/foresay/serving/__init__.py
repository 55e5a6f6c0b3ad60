"""A server of OpenAI's interface over the engine: schema, worker, replies, metrics, application."""
