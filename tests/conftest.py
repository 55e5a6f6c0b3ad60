"""One thread, no hub, and hypothesis without clocks or a database: the same run everywhere."""

import os
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = f"{tempfile.gettempdir()}/hypothesis"

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("laws", deadline=None, database=None, derandomize=True, max_examples=60)
settings.load_profile("laws")
