"""Run examples/quickstart.ipynb and keep what it shows.

python docs/make_notebook.py
"""

import warnings
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "examples" / "quickstart.ipynb"
TIMEOUT_SECONDS = 900


def run(model: str = "smollm2") -> Any:
    """The notebook with fresh outputs, of `model` in place of smollm2. Raises nbclient's CellExecutionError."""
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = cell.source.replace('"smollm2"', f'"{model}"')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the kernel's own event loop
        NotebookClient(notebook, timeout=TIMEOUT_SECONDS, kernel_name="python3").execute()
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        cell.metadata.pop("execution", None)  # times of day
        # What libraries warn of holds paths of the machine.
        cell.outputs = [shown for shown in cell.get("outputs", ()) if shown.get("name") != "stderr"]
    return notebook


if __name__ == "__main__":
    nbformat.write(run(), NOTEBOOK)
