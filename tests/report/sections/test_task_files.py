"""The table and the pictures of a detection or segmentation run are embedded; what is missing is a sentence."""

import base64
import io
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from keras_bot.recipe import Recipe
from keras_bot.report.run_files import RunRecord
from keras_bot.report.sections.task_files import classes_and_pictures


@pytest.fixture
def run(tmp_path):
    (tmp_path / "table.md").write_text("class <a>  0.5\n\n")
    pixels = np.full((20, 2800, 3), 200, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "predictions.png")
    return RunRecord("one", tmp_path, Recipe(task="detection"), {}, [])


def test_the_files_are_shown(run):
    page, missing = classes_and_pictures(run)
    assert missing == [] and "<pre>class &lt;a&gt;  0.5</pre>" in page
    assert "<figcaption>Results by class, one</figcaption>" in page and 'aria-label="Results by class, one"' in page
    assert "<figcaption>Predictions of one for images of the evaluation set</figcaption>" in page
    image = Image.open(io.BytesIO(base64.b64decode(re.search(r"data:image/jpeg;base64,([^\"]*)", page)[1])))
    assert image.size == (1400, 10) and abs(int(np.asarray(image).mean()) - 200) <= 1


def test_missing_and_damaged_files_are_noted(run):
    (run.path / "table.md").unlink()
    (run.path / "predictions.png").write_text("text")
    page, missing = classes_and_pictures(run)
    assert page == "<div></div>"
    assert missing[0] == "table.md is not shown: it cannot be read (No such file or directory)."
    assert missing[1].startswith("predictions.png is not shown: it cannot be read (cannot identify image file")


def test_one_missing_file_does_not_hide_the_other(run):
    (run.path / "predictions.png").unlink()
    page, missing = classes_and_pictures(run)
    assert "<pre>" in page and len(missing) == 1 and isinstance(run.path, pathlib.Path)
