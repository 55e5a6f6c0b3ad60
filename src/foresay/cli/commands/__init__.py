"""The verbs of the command line: their options, and what each does with the library.

A verb is imported when it is asked for: what the others need (torch, transformers) takes seconds.
"""

import ast
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

PLACES = {
    "demo": "demo.DemoCommand",
    "advise": "advise.AdviseCommand",
    "train": "train.TrainCommand",
    "pretrain": "pretrain.PretrainCommand",
    "data": "data.DataCommand",
    "generate": "generate.GenerateCommand",
    "chat": "chat.ChatCommand",
    "serve": "serve.ServeCommand",
    "compress": "compress.CompressCommand",
    "export": "export.ExportCommand",
    "convert": "convert.ConvertCommand",
    "publish": "publish.PublishCommand",
    "check": "check.CheckCommand",
    "eval": "evaluate.EvalCommand",
    "bench": "bench.BenchCommand",
    "calibrate": "calibrate.CalibrateCommand",
    "study": "study.StudyCommand",
    "report": "report.ReportCommand",
    "info": "info.InfoCommand",
}
"""Module and class of each verb."""
BELOW = {
    "data": {"preview": "data.DataPreviewCommand", "generate": "data.DataGenerateCommand"},
}
"""Of verbs that have verbs of their own: those."""


class Verbs(Mapping[str, type]):
    """The class of each verb, imported when it is asked for."""

    def __getitem__(self, verb: str) -> type:
        return _class_at(PLACES[verb])

    def __iter__(self) -> Iterator[str]:
        return iter(PLACES)

    def __len__(self) -> int:
        return len(PLACES)

    def below(self, verb: str) -> dict[str, type]:
        """The verbs below `verb`, where it has some, and their classes."""
        return {name: _class_at(place) for name, place in BELOW.get(verb, {}).items()}

    def summary(self, verb: str) -> str:
        """The first sentences of the verb's docstring, in one line; nothing is imported."""
        module, name = PLACES[verb].split(".")
        code = ast.parse(Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8"))
        [own] = [node for node in code.body if isinstance(node, ast.ClassDef) and node.name == name]
        return (ast.get_docstring(own) or "").split("\n\n")[0].replace("\n", " ")


def _class_at(place: str) -> type:
    module, name = place.split(".")
    kind: type = getattr(import_module(f"{__name__}.{module}"), name)
    return kind


VERBS = Verbs()
