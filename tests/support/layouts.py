"""The layouts that laws run over: whoever adds one to `DecodeConfig` has them all ask about it."""

from typing import get_args

from foresay.decoding.config import FixedLayout, LayoutName

FIXED: tuple[FixedLayout, ...] = get_args(FixedLayout)
"""Every layout that is the same in each step."""
DRAFTING: tuple[FixedLayout, ...] = tuple(layout for layout in FIXED if layout != "plain")
"""Those with masks."""
ALL: tuple[LayoutName, ...] = get_args(LayoutName)
"""Every choice, `planned` among them."""
