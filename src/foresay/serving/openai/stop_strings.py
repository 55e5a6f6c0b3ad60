"""The text of one answer, step by step, up to a stop string."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from foresay.decoding.detokenizer import Detokenizer


class Answer:
    """Text that may be shown: nothing of a stop string, nor what may become one."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str] = (), least: int = 0, special: bool = False
    ) -> None:
        """Stop strings count from the token after the `least`; `special` tokens show but for one that ends it."""
        self._stops, self._least = tuple(stops), least
        self._special = frozenset(tokenizer.all_special_ids if special else ())
        self._detokenizer = Detokenizer(tokenizer, special)
        self._free = 0
        self._held = ""
        self._heard = 0
        self._cut = False

    @property
    def watched(self) -> bool:
        """`hears` must be told of every token."""
        return bool(self._stops)

    def hears(self, token: int) -> bool:
        """Take in a token; whether it completes a stop string, which ends the text before that string."""
        self._heard += 1
        self._held += self._detokenizer.add([token])
        if self._least:
            self._least, self._free = self._least - 1, len(self._held)
        places = [place for stop in self._stops if (place := self._held.find(stop, self._free)) >= 0]
        if places:
            self._held, self._cut = self._held[: min(places)], True
        return self._cut

    def tell(self, tokens: Sequence[int], ended: bool) -> str:
        """Text to show after a step that kept these tokens; all there is once the answer has `ended`."""
        # A stop token was never heard: the session knows it by itself.
        closed = ended and bool(tokens) and tokens[-1] in self._special
        self._held += self._detokenizer.add(tokens[self._heard : len(tokens) - closed])
        self._heard = 0
        if ended and not self._cut:
            self._held += self._detokenizer.rest()
        keep = 0 if ended else _beginning(self._held, self._stops)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(shown) :]
        self._free = max(self._free - len(shown), 0)
        return shown


def _beginning(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` that a stop string begins with."""
    longest = max((len(stop) - 1 for stop in stops), default=0)
    lengths = range(min(longest, len(text)), 0, -1)
    return next((length for length in lengths if any(stop.startswith(text[-length:]) for stop in stops)), 0)
