"""`foresay check`: is it lossless?"""

from dataclasses import asdict, dataclass, field, replace

from foresay.check import Certificate, CheckConfig, Checker, check_sampling
from foresay.config import (
    SampleConfig,
)
from foresay.terminal import ERR, OUT, print_json, print_table
from foresay.trial import SamplingReport
from foresay.verbs.opening import Chosen, Model, Opening
from foresay.view.bars import progress_bar
from foresay.view.tables import divergence_table


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckCommand:
    """Check that accelerated output is the base's own: greedy token for token, sampled by its distribution.

    Every answer is compared with transformers' greedy generate. A difference is a tie when the two tokens are the
    base's best two, their margin is within rounding, and the whole prompt repeated in float32 agrees; else it is a bug.

    The shortest prompt is then answered many times, sampled by transformers and in each layout, and a permutation test
    compares the joint distribution of tokens 2 to 6. A corrected p-value below 0.01 is a fault: one sound model in a
    hundred has it by chance, and hardly again with another --seed. A verifier broken on purpose must be caught too,
    or the test says that it has no power. With --temperature 0 nothing is sampled.

    Examples:
      foresay check nano
      foresay check nano --full --dtype bfloat16
      foresay check my-adapter --prompts prompts.jsonl --json > certificate.json
    """

    model: Model
    """Folder of a foresay model, or nano."""
    full: bool = False
    """Check 200 prompts of 128 tokens instead of a few, and sampling to a shift of 0.05."""
    json: bool = False
    """Print one JSON object."""
    chosen: Chosen = field(default_factory=Chosen)
    check: CheckConfig = field(default_factory=CheckConfig)
    sample: SampleConfig = field(default_factory=lambda: SampleConfig(temperature=1.0))
    opening: Opening = field(default_factory=Opening)

    def run(self) -> int:
        """0 when lossless, 1 on any bug or bias."""
        model = self.opening.open(self.model)
        config = replace(self.check, max_new_tokens=128, shift=0.05) if self.full else self.check
        prompts = self.chosen.load(model, 50 if self.full else 8, "all")
        with progress_bar(ERR) as bar:
            greedy = bar.add_task("checking", total=len(prompts) * (1 + len(config.layouts)))
            sampled = bar.add_task("sampling", total=2 + len(config.layouts))
            checker = Checker(
                model, config, lambda dtype: self.opening.open(self.model, dtype), lambda done: bar.advance(greedy)
            )
            certificate = checker.run(prompts)
            sampling = check_sampling(model, prompts, self.sample, config, lambda done: bar.advance(sampled))
        if self.json:
            found = sampling and asdict(sampling) | {"has_power": sampling.has_power, "sentence": sampling.sentence}
            print_json(asdict(certificate) | {"sentence": certificate.sentence, "sampling": found})
        else:
            self._tell(certificate, sampling)
        return 1 if certificate.bugs or (sampling and sampling.biased) else 0

    def _tell(self, certificate: Certificate, sampling: SamplingReport | None) -> None:
        if certificate.divergences:
            print_table(divergence_table(certificate))
        rates = ", ".join(f"{layout} {value:.2f}" for layout, value in certificate.tokens_per_step.items())
        OUT.print(certificate.sentence)
        OUT.print(
            f"{certificate.prompts} prompts, {certificate.tokens} tokens in {certificate.dtype}; per step: {rates}"
        )
        if sampling is not None:
            OUT.print(sampling.sentence)
            OUT.print(
                f"{sampling.samples} answers a layout, {sampling.reference_samples} of transformers: a total variation "
                f"of {sampling.shift:.2f} between {sampling.classes} classes is found with {sampling.power:.0%} chance"
            )
