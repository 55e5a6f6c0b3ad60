"""Studies: named grids of small trainings, measured alike, with spread over seeds."""

from foresay.evaluation.studies.ablation import LADDER
from foresay.evaluation.studies.gated_lora import GATE
from foresay.evaluation.studies.lora_rank import RANK
from foresay.evaluation.studies.loss_variants import LOSSES
from foresay.evaluation.studies.study import Study
from foresay.evaluation.studies.token_ranks import GUESS
from foresay.foundation.errors import ConfigError

STUDIES = {study.name: study for study in (LADDER, RANK, GATE, GUESS, LOSSES)}


def study_called(name: str) -> Study:
    """The study of that name. Raises ConfigError."""
    if name not in STUDIES:
        raise ConfigError(f"there is no study {name!r}; known are {', '.join(STUDIES)}")
    return STUDIES[name]
