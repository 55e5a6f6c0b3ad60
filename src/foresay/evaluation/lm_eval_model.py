"""Our model as lm-evaluation-harness knows one. Imported only where the extra `eval` is installed."""

from typing import Any

from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from foresay.decoding.config import DecodeConfig
from foresay.model import MultiTokenModel


@register_model("foresay")
class ForesayLM(HFLM):  # type: ignore[misc]
    """The harness's own Hugging Face model, with our decoder in `generate_until`.

    Importing this module registers it, so that `simple_evaluate(model="foresay", model_args={"pretrained": FOLDER})`
    finds it. Log-likelihoods come from the base, whose gate is closed.
    """

    def __init__(self, pretrained: str | MultiTokenModel, decode: DecodeConfig | None = None, **settings: Any) -> None:
        """`pretrained`: a model, or the folder of one; `settings` are the harness's own."""
        named = isinstance(pretrained, str)
        self.multi: MultiTokenModel = MultiTokenModel.from_pretrained(pretrained) if named else pretrained  # type: ignore
        self.decode = decode or DecodeConfig()
        super().__init__(self.multi.base.model, tokenizer=self.multi.require_tokenizer(), **settings)
        self.multi.attach_hooks()

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **asked: Any) -> Any:
        """(B, L) int64: prompts with continuations; greedy unless a temperature or `do_sample` is asked for."""
        temperature = asked.pop("temperature", 0.0)
        sampled = asked.pop("do_sample", temperature > 0)
        return self.multi.generate(
            context,
            config=self.decode,
            # The harness's own criterion keeps count of the rows of a batch, which leave ours as they end.
            stop_strings=stop,
            tokenizer=self.tokenizer,
            max_length=max_length,
            pad_token_id=self.tokenizer.pad_token_id,
            do_sample=sampled,
            **({"temperature": temperature} if sampled and temperature else {}),
            **asked,
        )
