"""The notebook runs from its first to its last cell, on the images that it writes."""

import json

import pytest
from guide import ROOT
from processes import run_python

NOTEBOOK = ROOT / "docs/fine_tune_your_photos.ipynb"


def code_cells() -> list[str]:
    """Returns the code of the notebook's cells."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_one_cell_installs_and_no_cell_has_output():
    installing = [code for code in code_cells() if "pip install" in code]
    assert installing == ["%pip install -q ."]
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") for cell in cells)


@pytest.mark.thorough
def test_the_cells_run_in_order(tmp_path):
    program = "\n".join(code for code in code_cells() if not code.startswith("%"))
    assert "EPOCHS = 10\n" in f"{program}\n"
    program = program.replace("EPOCHS = 10", "EPOCHS = 1").replace(
        "digits.images, digits", "digits.images[:300], digits"
    )
    program = program.replace("digits.target, strict=True", "digits.target[:300], strict=True")
    done = run_python(program, cwd=tmp_path, env={"MPLBACKEND": "Agg", "TF_CPP_MIN_LOG_LEVEL": "3"})
    assert "top-1 " in done.stdout and " -> digit" in done.stdout
    assert (tmp_path / "exports/notebook/saved_model.pb").exists()
