"""The verbs of the command line: their options, and what each does with the library."""

from foresay.cli.commands.advise import AdviseCommand
from foresay.cli.commands.bench import BenchCommand
from foresay.cli.commands.calibrate import CalibrateCommand
from foresay.cli.commands.chat import ChatCommand
from foresay.cli.commands.check import CheckCommand
from foresay.cli.commands.compress import CompressCommand
from foresay.cli.commands.convert import ConvertCommand
from foresay.cli.commands.data import DataCommand
from foresay.cli.commands.demo import DemoCommand
from foresay.cli.commands.evaluate import EvalCommand
from foresay.cli.commands.export import ExportCommand
from foresay.cli.commands.generate import GenerateCommand
from foresay.cli.commands.info import InfoCommand
from foresay.cli.commands.pretrain import PretrainCommand
from foresay.cli.commands.publish import PublishCommand
from foresay.cli.commands.report import ReportCommand
from foresay.cli.commands.serve import ServeCommand
from foresay.cli.commands.study import StudyCommand
from foresay.cli.commands.train import TrainCommand

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
    "publish": PublishCommand,
    "check": CheckCommand,
    "eval": EvalCommand,
    "bench": BenchCommand,
    "calibrate": CalibrateCommand,
    "study": StudyCommand,
    "report": ReportCommand,
    "info": InfoCommand,
}
