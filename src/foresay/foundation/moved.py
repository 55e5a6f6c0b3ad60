"""Where public modules and names went: an import of an old one fails with a sentence that says so. No alias is kept."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

MODULES = {
    "foresay.adapt": "foresay.training.train",
    "foresay.artefact": "foresay.models.artefact.folder",
    "foresay.benchmark": "foresay.evaluation.speed.bench",
    "foresay.check": "foresay.evaluation.lossless.greedy",
    "foresay.compress": "foresay.training.compress",
    "foresay.config": "foresay",
    "foresay.conversation": "foresay.serving.conversation",
    "foresay.convert": "foresay.models.artefact.meta",
    "foresay.errors": "foresay",
    "foresay.evaluate": "foresay.evaluation.acceptance",
    "foresay.export": "foresay.serving.vllm.export",
    "foresay.fingerprint": "foresay.models.artefact.fingerprint",
    "foresay.layout": "foresay.models.layout.layout",
    "foresay.metrics": "foresay.decoding.metrics",
    "foresay.pretrain": "foresay.training.pretrain",
    "foresay.prompts": "foresay.data.prompts",
    "foresay.ray_train": "foresay.training.on_ray",
    "foresay.run": "foresay.training.recipe",
    "foresay.served": "foresay.serving.vllm.manifest",
    "foresay.vllm_plugin": "foresay.serving.vllm.plugin",
}
"""Modules that are no more. Settings and errors are imported from `foresay` itself."""
NAMES = {
    "foresay.decoding.detokenizer": {"Said": "StepText"},
    "foresay.decoding.engine": {"Progress": "RequestProgress"},
    "foresay.decoding.metrics": {"Acceptance": "PositionAcceptance"},
    "foresay.decoding.sampling.randomness": {"Dice": "RandomNumbers", "SeededDice": "SeededNumbers"},
    "foresay.decoding.sampling.recorded": {"Record": "TokenScores"},
    "foresay.decoding.sampling.verify": {"Asked": "DraftsToVerify", "Verdict": "Verification"},
    "foresay.foundation.errors": {"MaskError": "LossMaskError"},
    "foresay.serving.vllm.manifest": {"Served": "Manifest"},
    "foresay.serving.vllm.server": {"Server": "VllmServer"},
    "foresay.training.distillation.backend": {"Engine": "AnswerBackend", "Asked": "PromptRow", "Said": "Answer"},
    "foresay.training.pretrain": {"Reading": "PretrainUpdate", "Pretrained": "PretrainResult"},
    "foresay.training.train": {"adapt": "train", "Adapted": "TrainResult", "News": "TrainUpdate"},
}
"""Modules that there are, and what some of their names were called before."""


class Guide(MetaPathFinder):
    """Answers imports of what has moved; every other import is left to the finders after it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Raises ModuleNotFoundError for a module that moved."""
        if fullname in MODULES:
            raise ModuleNotFoundError(_sentence(fullname, MODULES[fullname]), name=fullname)
        if fullname not in NAMES or (spec := PathFinder.find_spec(fullname, path)) is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_guide(module: ModuleType) -> None:
            load(module)
            module.__getattr__ = lambda name: _renamed(fullname, name)  # type: ignore[method-assign]

        spec.loader.exec_module = load_and_guide  # type: ignore[method-assign]
        return spec


def guide() -> None:
    """Say where things went, from now on, in this process."""
    if not any(isinstance(finder, Guide) for finder in sys.meta_path):
        sys.meta_path.insert(0, Guide())


def _renamed(module: str, name: str) -> Any:
    if name in NAMES[module]:
        # An AttributeError would lose its sentence: `from module import name` makes one of its own.
        raise ImportError(_sentence(f"{module}.{name}", f"{module}.{NAMES[module][name]}"), name=module)
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


def _sentence(old: str, new: str) -> str:
    return f"{old} is now {new}; import it from there (CHANGELOG.md lists what moved)"
