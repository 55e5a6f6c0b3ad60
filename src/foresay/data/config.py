"""Settings of what is read from data."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """How data are read."""

    columns: tuple[str, ...] = ()
    """Columns under unusual names, as OURS=THEIRS: prompt=Question response=Reply (also messages, text, domain)."""
    strict: bool = False
    """Refuse the data for a single bad row instead of counting it."""
