"""Which options were given on the command line: an option at its default may have been asked for in so many words."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Given:
    """The options that stood on a command line. A settings file gives values, not options: those are none of them."""

    names: frozenset[str] = frozenset()
    """As Python writes them (`max_new_tokens`), a switch as it was given (`no_packing`)."""

    @classmethod
    def on(cls, arguments: Iterable[str]) -> "Given":
        """Those among these words, each `--name`, `--name=value` or `--no-name`, up to a bare `--`.

        >>> "max_new_tokens" in Given.on(["bench", "nano", "--max-new-tokens", "48"])
        True
        """
        names = set()
        for word in arguments:
            if word == "--":
                break
            if word.startswith("--"):
                names.add(word.split("=")[0].lstrip("-").replace("-", "_"))
        return cls(frozenset(names))

    def __contains__(self, name: object) -> bool:
        return bool(self.names & {name, f"no_{name}"})

    def among(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that were given, in the order of `names`."""
        return [name for name in names if name in self]
