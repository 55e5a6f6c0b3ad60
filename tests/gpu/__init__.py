"""Laws to run on a GPU. Without one they skip, in words; `FORESAY_GPU_LAWS=cpu` rehearses them on a CPU, with less."""

import os

REHEARSED = os.environ.get("FORESAY_GPU_LAWS") == "cpu"
