"""`foresay check`: is it lossless?"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from foresay.cli.commands.options import Chosen, Model, Opening, Options, filled
from foresay.cli.given import Given
from foresay.cli.terminal import ERR, OUT, print_table, tell_and_keep
from foresay.cli.views.bars import progress_bar
from foresay.cli.views.tables import count_table, divergence_table
from foresay.data.prompts import Prompt
from foresay.decoding.config import SampleConfig
from foresay.evaluation.config import CheckConfig
from foresay.evaluation.lossless.base_unchanged import check_untouched, witness
from foresay.evaluation.lossless.certificate import Certificate
from foresay.evaluation.lossless.greedy import Checker
from foresay.evaluation.lossless.proof import Proof
from foresay.evaluation.lossless.sampling import SamplingReport, check_sampling
from foresay.foundation.files import check_file
from foresay.model import MultiTokenModel


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckCommand:
    """Check that accelerated output is the base's own: greedy token for token, sampled by its distribution.

    Every answer is compared with transformers' greedy generate. A difference is a tie when both tokens are within
    rounding of the base's best one there (4 machine epsilons of the dtype times the largest logit), and the whole
    prompt repeated in float32 agrees (`planned` plans anew there); else it is a bug. Where something differs, the noise
    floor is said too: how many of transformers' own answers change when it answers 4 prompts together. Weights of the
    base are compared before and after, and so are its logits with the adapter on and the gate closed, bit for bit.

    The shortest prompt is then answered many times, sampled by transformers and in each layout, and a permutation test
    compares the joint distribution of tokens 2 to 6. A corrected p-value below 0.01 is a fault: one sound model in a
    hundred has it by chance, and hardly again with another --seed. A verifier broken on purpose must be caught too,
    or the test says that it has no power. With --temperature 0 nothing is sampled.

    Examples:
      foresay check smollm2
      foresay check smollm2 --full --dtype bfloat16
      foresay check my-adapter --prompts prompts.jsonl --batch-sizes 1 8 --out certificate.json
    """

    model: Model
    """Folder of a foresay model, smollm2 or nano."""
    full: bool = False
    """Check 200 prompts of 128 tokens instead of a few, and sampling to a shift of 0.05."""
    out: Path | None = None
    """File for the certificate as JSON, beside what is printed."""
    json: bool = False
    """Print one JSON object."""
    chosen: Chosen = field(default_factory=Chosen)
    check: CheckConfig = field(default_factory=CheckConfig)
    sample: SampleConfig = field(default_factory=lambda: SampleConfig(temperature=1.0))
    opening: Opening = field(default_factory=Opening)
    given: Options = field(default_factory=Given)

    def run(self) -> int:
        """0 when lossless, 1 on any bug, bias, or change of the base."""
        if self.out is not None:
            check_file(self.out)
        before = witness(self.opening.bare(self.model))
        model = self.opening.open(self.model)
        config = filled(self.check, self.given, max_new_tokens=128, shift=0.05) if self.full else self.check
        prompts = self.chosen.load(model, 50 if self.full else 8, "all")
        greedy, sampling = self._compare(model, prompts, config)
        proof = Proof(greedy, check_untouched(before, model), sampling)
        tell_and_keep(proof.content(), None if self.json else lambda: _tell(proof), self.out)
        return 1 if proof.fails else 0

    def _compare(
        self, model: MultiTokenModel, prompts: Sequence[Prompt], config: CheckConfig
    ) -> tuple[Certificate, SamplingReport | None]:
        with progress_bar(ERR) as bar:
            every = len(prompts) * (2 + len(config.settings))
            greedy = bar.add_task("checking", total=every)
            checker = Checker(
                model, config, lambda dtype: self.opening.open(self.model, dtype), lambda done: bar.advance(greedy)
            )
            certificate = checker.run(prompts)
            bar.update(greedy, completed=every)  # where nothing differs there is no noise floor
            sampled = bar.add_task("sampling", total=2 + len(config.layouts), visible=self.sample.temperature > 0)
            sampling = check_sampling(model, prompts, self.sample, config, lambda done: bar.advance(sampled))
        return certificate, sampling


def _tell(proof: Proof) -> None:
    greedy, sampling = proof.greedy, proof.sampling
    if greedy.divergences:
        print_table(divergence_table(greedy))
    if len(greedy.counts) > len(greedy.tokens_per_step):
        print_table(count_table(greedy))
    rates = ", ".join(f"{layout} {value:.2f}" for layout, value in greedy.tokens_per_step.items())
    OUT.print(greedy.sentence)
    OUT.print(f"{greedy.prompts} prompts, {greedy.tokens} tokens in {greedy.dtype}; per step: {rates}")
    OUT.print(greedy.surety)
    OUT.print(proof.untouched.sentence)
    if sampling is not None:
        OUT.print(sampling.sentence)
        OUT.print(
            f"{sampling.samples} answers a layout, {sampling.reference_samples} of transformers: a total variation "
            f"of {sampling.shift:.2f} between {sampling.classes} classes is found with {sampling.power:.0%} chance"
        )
