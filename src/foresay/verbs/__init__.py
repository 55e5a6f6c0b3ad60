"""The verbs of the command line: their options, and what each does with the library."""

from foresay.verbs.advise import AdviseCommand
from foresay.verbs.bench import BenchCommand, CalibrateCommand
from foresay.verbs.chat import ChatCommand
from foresay.verbs.check import CheckCommand
from foresay.verbs.convert import ConvertCommand
from foresay.verbs.data import DataCommand
from foresay.verbs.evaluate import EvalCommand
from foresay.verbs.export import ExportCommand
from foresay.verbs.generate import GenerateCommand
from foresay.verbs.info import DemoCommand, InfoCommand
from foresay.verbs.pretrain import PretrainCommand
from foresay.verbs.report import ReportCommand
from foresay.verbs.serve import ServeCommand
from foresay.verbs.study import StudyCommand
from foresay.verbs.train import CompressCommand, TrainCommand

VERBS: dict[str, type] = {
    "demo": DemoCommand,
    "advise": AdviseCommand,
    "train": TrainCommand,
    "pretrain": PretrainCommand,
    "data": DataCommand,
    "generate": GenerateCommand,
    "chat": ChatCommand,
    "serve": ServeCommand,
    "compress": CompressCommand,
    "export": ExportCommand,
    "convert": ConvertCommand,
    "check": CheckCommand,
    "eval": EvalCommand,
    "bench": BenchCommand,
    "calibrate": CalibrateCommand,
    "study": StudyCommand,
    "report": ReportCommand,
    "info": InfoCommand,
}
