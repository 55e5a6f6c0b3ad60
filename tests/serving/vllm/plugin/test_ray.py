"""The recipe for Ray Serve LLM: two replicas on this machine. Takes minutes, so only where FORESAY_TEST_RAY=1."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("vllm", reason="vLLM has an environment of its own: make test-vllm")

import openai

from foresay.model import MultiTokenModel
from foresay.serving.vllm.manifest import engine_arguments
from tests.serving.vllm.plugin.engines import reference

pytestmark = pytest.mark.skipif(
    os.environ.get("FORESAY_TEST_RAY") != "1",
    reason="Ray takes minutes: set FORESAY_TEST_RAY=1, with ray[serve,data] and jsonref installed beside vLLM",
)
RECIPE = Path(__file__).parents[4] / "recipes" / "serving" / "ray.yaml"
PORT = 8127
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}


def test_two_replicas_answer_as_transformers(nano: MultiTokenModel, nano_copy: Path, prompts: list[list[int]]) -> None:
    import ray  # noqa: PLC0415 - opt-in
    from ray import serve  # noqa: PLC0415
    from ray.serve.llm import LLMConfig, build_openai_app  # noqa: PLC0415

    [application] = yaml.safe_load(RECIPE.read_text())["applications"]
    [recipe] = application["args"]["llm_configs"]
    assert {"model": str(nano_copy), **recipe["engine_kwargs"]} == engine_arguments(nano_copy)
    recipe["model_loading_config"]["model_source"] = str(nano_copy)
    recipe["engine_kwargs"] |= {"dtype": "float32", "max_model_len": 512, "enforce_eager": True}
    # Logical cores: the replicas' and those that Ray's ingress asks for.
    ray.init(num_cpus=12, include_dashboard=False, object_store_memory=200 << 20, runtime_env={"env_vars": ENVIRONMENT})
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": PORT})
        serve.run(build_openai_app({"llm_configs": [LLMConfig(**recipe)]}), blocking=False)
        client: Any = openai.OpenAI(base_url=f"http://127.0.0.1:{PORT}/v1", api_key="none", timeout=120)
        for prompt, tokens in zip(prompts, reference(nano, prompts[:6], 16)):
            said = client.completions.create(model="foresay", prompt=prompt, max_tokens=16, temperature=0.0)
            assert said.choices[0].text == nano.require_tokenizer().decode(tokens, skip_special_tokens=True)
    finally:
        serve.shutdown()
        ray.shutdown()
