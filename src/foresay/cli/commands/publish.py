"""`foresay publish`: a model on the Hugging Face hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from foresay.cli.terminal import ERR, OUT, print_json, print_table
from foresay.models.artefact.publish import Publication, publication, publish


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishCommand:
    """Send a model to the Hugging Face hub, with a card made of what was measured.

    The card names the base, tokens per step at the end of training, and the verdict in a certificate.json that
    `foresay check --out` wrote into the folder. Who finds the model there loads it with `foresay generate USER/NAME`,
    or inside transformers with `custom_generate="USER/NAME"`.

    Examples:
      foresay publish my-adapter me/my-adapter --dry-run
      foresay publish my-adapter me/my-adapter --licence apache-2.0 --private
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of a foresay model."""
    repo: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="USER/NAME")]
    """Repository on the hub; made where it is missing."""
    base_id: str = ""
    """Hub id of the base, where the model names a folder."""
    licence: Annotated[str, tyro.conf.arg(aliases=("--license",))] = ""
    """The adapter's licence, as the hub names it; empty: the card says none."""
    private: bool = False
    """Make a repository that only you see."""
    dry_run: bool = False
    """Print what would go there, the card included, and send nothing."""
    json: bool = False
    """Print one JSON object."""

    def run(self) -> int:
        """Send, or say what would be sent."""
        made = publication(self.folder, self.repo, self.base_id, self.licence)
        address = "" if self.dry_run else publish(made, self.private)
        if self.json:
            print_json({"repo": made.repo, "files": made.sizes, "commit": address})
        elif self.dry_run:
            _tell(made)
        else:
            OUT.print(f"{len(made.files)} files are at {address}", highlight=False)
        return 0


def _tell(made: Publication) -> None:
    table = Table("file", "bytes")
    for name, size in made.sizes.items():
        table.add_row(name, f"{size:,}")
    print_table(table)
    card = made.files["README.md"]
    OUT.print(card.decode() if isinstance(card, bytes) else card, highlight=False)
    ERR.print("nothing was sent: this was a dry run")
