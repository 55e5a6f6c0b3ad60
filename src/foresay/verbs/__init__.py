"""The verbs of the command line: their options, and what each does with the library."""

from foresay.verbs.bench import BenchCommand, CalibrateCommand
from foresay.verbs.chat import ChatCommand
from foresay.verbs.check import CheckCommand
from foresay.verbs.data import DataCommand
from foresay.verbs.generate import GenerateCommand
from foresay.verbs.info import DemoCommand, InfoCommand
from foresay.verbs.serve import ServeCommand
from foresay.verbs.train import CompressCommand, TrainCommand

VERBS: dict[str, type] = {
    "demo": DemoCommand,
    "train": TrainCommand,
    "data": DataCommand,
    "generate": GenerateCommand,
    "chat": ChatCommand,
    "serve": ServeCommand,
    "compress": CompressCommand,
    "check": CheckCommand,
    "bench": BenchCommand,
    "calibrate": CalibrateCommand,
    "info": InfoCommand,
}
