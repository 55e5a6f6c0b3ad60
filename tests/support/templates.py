"""Chat templates that write tool calls in the ways that models in use do (Qwen's, Llama's, Mistral's)."""

MARKED = """{%- if tools %}{{- '<|system|>' }}{%- for tool in tools %}{{- tool | tojson + '\\n' }}{%- endfor %}
{%- endif %}
{%- for message in messages %}{{- '<|' + message.role + '|>' }}{%- if message.content %}
{{- '\\n' + message.content }}{%- endif %}
{%- for call in message.tool_calls or [] %}{%- set call = call.function %}
{{- '\\n<tool_call>\\n{"name": "' + call.name }}
{{- '", "arguments": ' }}{{- call.arguments | tojson }}{{- '}\\n</tool_call>' }}{%- endfor %}
{{- '<|endoftext|>' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- endif %}"""
"""One mark before each call, one after it."""
BARE = """{%- if tools %}{{- tools | tojson }}{%- endif %}{%- for message in messages %}
{{- '<|' + message.role + '|>\\n' }}
{%- if message.tool_calls %}{%- if message.tool_calls | length > 1 %}{{- raise_exception('one call at a time') }}
{%- endif %}
{%- set call = message.tool_calls[0].function %}{{- '{"name": "' + call.name + '", "parameters": ' }}
{{- call.arguments | tojson }}{{- '}<|endoftext|>' }}{%- else %}{{- message.content + '<|endoftext|>' }}
{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- endif %}"""
"""An object and nothing else, one at a time."""
LISTED = """{%- if tools %}{{- tools | tojson }}{%- endif %}{%- for message in messages %}
{%- if message.role == 'user' %}
{{- '[INST] ' + message.content + ' [/INST]' }}{%- elif message.tool_calls %}{{- '[TOOL_CALLS] [' }}
{%- for call in message.tool_calls %}{{- (call.function | tojson)[:-1] + ', "id": "' + call.id + '"}' }}
{%- if not loop.last %}{{- ', ' }}{%- endif %}{%- endfor %}{{- ']<|endoftext|>' }}
{%- else %}{{- ' ' + message.content + '<|endoftext|>' }}{%- endif %}{%- endfor %}"""
"""A list of objects after a mark."""
CODE = """{%- for message in messages %}{{- message.role + ': ' + message.content }}
{%- for call in message.tool_calls or [] %}{{- '<function=' + call.function.name + '>' }}{%- endfor %}{%- endfor %}
{%- if tools %}{{- tools | tojson }}{%- endif %}"""
"""No JSON."""
