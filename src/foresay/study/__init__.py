"""Studies: named grids of small trainings, measured alike, with spread over seeds."""

from foresay.errors import ConfigError
from foresay.study.cell import Study
from foresay.study.gate import GATE
from foresay.study.guess import GUESS
from foresay.study.ladder import LADDER
from foresay.study.losses import LOSSES
from foresay.study.rank import RANK

STUDIES = {study.name: study for study in (LADDER, RANK, GATE, GUESS, LOSSES)}


def study_called(name: str) -> Study:
    """The study of that name. Raises ConfigError."""
    if name not in STUDIES:
        raise ConfigError(f"there is no study {name!r}; known are {', '.join(STUDIES)}")
    return STUDIES[name]
