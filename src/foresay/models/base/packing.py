"""When decoding runs on packed linears: as `LoadConfig.pack_linears` says, by itself where that was measured to pay."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from foresay.foundation.errors import ConfigError
from foresay.models.base.model import Base
from foresay.models.base.packed_linears import PackedLinears, can_pack
from foresay.models.base.packing_pays import packing_pays
from foresay.models.base.shared_inputs import Group, noting_inputs
from foresay.models.base.user_lora import linear_in
from foresay.models.config import Pack


class Packing:
    """Whether the linears of a base, and what stands beside it, are packed for decoding.

    Kept as they are beside the packed copy: the unembedding, whose rows drafts and tied embeddings look up, weights
    that two modules share, and everything beside the base, which training may change.
    """

    def __init__(self, base: Base) -> None:
        self.base, self._head = base, linear_in(base.head) or base.head
        self.wanted: Pack = "off"
        self._linears = PackedLinears(())
        self._pays: bool | None = None

    @contextmanager
    def noting(self, added: nn.Module) -> Iterator[list[Group]]:
        """Note, while the block runs a decoding call, which linears of the base and of `added` share an input.

        Gives the groups of the base's adapted linears when the block ends.
        """
        adapted, beside = list(self.base.linears().adapted.values()), _linears_of(added)
        with noting_inputs([*adapted, *beside]) as groups:
            yield groups
        kept = [self._head, *beside, *_shared_weights(self.base)]
        self._linears = PackedLinears([*map(_own, groups), *_wrapped(adapted), (self._head,)], kept)
        groups[:] = [own for group in groups if (own := tuple(one for one in group if one not in beside))]

    def want(self, wanted: Pack) -> None:
        """Say what is wanted. Raises ConfigError for `on` where nothing can be packed."""
        self.unpack()
        if wanted == "on" and not can_pack(self._head):
            raise ConfigError(
                f"packed linears were asked for, and none of this base in {self.base.dtype} on {self.base.device} can "
                "be: they are for float32 on a CPU with oneDNN, or bfloat16 where it has the products; leave out "
                "--pack-linears"
            )
        self.wanted, self._pays = wanted, None

    @property
    def packs(self) -> bool:
        """Whether steps run packed; measured when first asked, where it is left to `auto`."""
        if self._pays is None:
            self._pays = self.wanted == "on" or (self.wanted == "auto" and self._found_to_pay())
        return self._pays

    def pack(self) -> None:
        """Pack now, where steps run packed, rather than in the first step."""
        if self.packs:
            self._linears.pack()

    def unpack(self) -> None:
        """Leave the base as it was found; the next step packs it again."""
        self._linears.unpack()

    @contextmanager
    def run(self) -> Iterator[None]:
        """A decoding step."""
        if not self.packs:
            self.unpack()
            yield
        else:
            with self._linears.run():
                yield

    def _found_to_pay(self) -> bool:
        packable = self._linears.packable()
        return can_pack(self._head) and packing_pays(packable, self._head)


def _linears_of(module: nn.Module) -> list[nn.Module]:
    return [part for part in module.modules() if isinstance(part, nn.Linear)]


def _own(group: Group) -> Group:
    """Those that are linears themselves: what PEFT put around one is called with the same input, and reads it anew."""
    return tuple(linear for linear in group if linear_in(linear) is linear)


def _wrapped(adapted: Sequence[nn.Module]) -> list[Group]:
    """The linears that PEFT put its own around, each alone."""
    return [(inner,) for module in adapted if (inner := linear_in(module)) is not None and inner is not module]


def _shared_weights(base: Base) -> list[nn.Module]:
    """Linears whose weight another module of the base has too."""
    counts = Counter(id(parameter) for _, parameter in base.model.named_parameters(remove_duplicate=False))
    weights = ((part, part._parameters.get("weight")) for part in base.model.modules())
    return [part for part, weight in weights if counts[id(weight)] > 1]
