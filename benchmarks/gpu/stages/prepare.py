"""Converts a GGUF base once, on the CPU, beside the first stage: the tokenizer alone takes half a minute."""

from job import Deadline, Job, Record

from foresay import MTPConfig, MultiTokenModel
from foresay.models.config import LoadConfig


def run(job: Job, record: Record, deadline: Deadline) -> None:
    """Open the base once; what is made from it stays in the cache folder."""
    MultiTokenModel.from_base(job.base, MTPConfig(num_masks=1, rank=1), loading=LoadConfig(device="cpu"))
