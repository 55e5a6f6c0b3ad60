"""Start the server, and ask it with OpenAI's own client, streaming.

pip install 'foresay[serve]' openai
python examples/serve_and_stream.py         # smollm2; `nano` for a look of ten seconds
"""

import subprocess
import sys
import time
from contextlib import closing
from socket import socket
from urllib.request import urlopen

from openai import OpenAI

name = sys.argv[1] if len(sys.argv) > 1 else "smollm2"
with closing(socket()) as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]

server = subprocess.Popen([sys.executable, "-m", "foresay", "serve", name, "--port", str(port), "--sequences", "2"])
try:
    while True:
        if server.poll() is not None:
            sys.exit("the server ended before it listened; what it said stands above")
        try:
            urlopen(f"http://127.0.0.1:{port}/health").close()
            break
        except OSError:
            time.sleep(0.5)

    client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
    stream = client.chat.completions.create(
        model=name,
        messages=[{"role": "user", "content": "Why is the sky blue?"}],
        temperature=0,
        max_tokens=48,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:  # one chunk a step
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
        if chunk.usage:
            print(f"\n{chunk.usage.completion_tokens} tokens in {chunk.usage.steps} steps")
finally:
    server.terminate()
    server.wait()
