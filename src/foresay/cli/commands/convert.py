"""`foresay convert`."""

from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

import tyro

from foresay.cli.commands.options import Options
from foresay.cli.given import Given
from foresay.cli.terminal import ERR, print_json
from foresay.foundation.errors import require
from foresay.foundation.files import check_output
from foresay.model import MultiTokenModel
from foresay.models.artefact.meta import from_meta, to_meta
from foresay.models.base.load import own_dtype
from foresay.training.warm_start import checkpoint_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertCommand:
    """Read the files of Meta's models with several heads, or write a model as such files.

    Theirs is a folder with params.json and consolidated.pth, of which tensors alone are read: nothing in it is run.
    What comes out is an ordinary Hugging Face checkpoint (trunk and head 1) with the other heads beside it. The way
    back takes Llamas with parallel heads.

    Examples:
      foresay convert 7B_1T_4 --tokenizer llama-2-tokenizer --out code-7b
      foresay convert my-heads --to meta --out their-files
    """

    folder: Annotated[str, tyro.conf.Positional]
    """Folder to read: theirs, or with `--to meta` a foresay model."""
    out: Path
    """Folder to write."""
    to: Literal["foresay", "meta"] = "foresay"
    """Whose files to write."""
    tokenizer: str = ""
    """The tokenizer that it was trained with, in Hugging Face's form: a folder or a hub id; their files bring none."""
    context: int = 4096
    """Longest text in tokens, which their files do not say (4,096 in training)."""
    overwrite: bool = False
    """Replace what is in the folder."""
    json: bool = False
    """Print one JSON object."""
    given: Options = field(default_factory=Given)

    def run(self) -> int:
        """Write the folder."""
        check_output(self.out, self.overwrite, (self.folder, self.tokenizer or self.folder))
        if self.to == "meta":
            require(not self.tokenizer, "their files hold no tokenizer; leave out --tokenizer")
            require("context" not in self.given, "their files do not say the context; leave out --context")
            model = MultiTokenModel.from_pretrained(self.folder, dtype=own_dtype(checkpoint_of(self.folder)))
            to_meta(model, self.out, self.overwrite)
            self._tell(f"Wrote {self.out} in {model.dtype_name}.", dtype=model.dtype_name)
            return 0
        require(bool(self.tokenizer), "their files bring no tokenizer; give --tokenizer with a folder or a hub id")
        require(self.context >= 1, f"context is {self.context}; give at least 1")
        heads = from_meta(Path(self.folder), self.tokenizer, self.out, self.context, self.overwrite).heads
        self._tell(
            f"Wrote {self.out}, {heads} heads. Look at it with: foresay bench {quote(str(self.out))}", heads=heads
        )
        return 0

    def _tell(self, sentence: str, **facts: Any) -> None:
        ERR.print(sentence, highlight=False)
        if self.json:
            print_json({"folder": str(self.out), "form": self.to, **facts})
