"""Page sections from the files of a detection or segmentation run: table of classes and pictures."""

import io

from PIL import Image, UnidentifiedImageError

from keras_bot.report.markup import Html, element, picture
from keras_bot.report.run_files import RunRecord

_MAX_WIDTH = 1400


def classes_and_pictures(run: RunRecord) -> tuple[Html, list[str]]:
    """Shows table.md and predictions.png of the run; also returns one sentence per missing or damaged file."""
    parts, missing = [], []
    for name, show in (("table.md", _table), ("predictions.png", _pictures)):
        try:
            parts.append(show(run, run.path / name))
        except (OSError, ValueError, UnidentifiedImageError) as error:
            reason = getattr(error, "strerror", None) or error
            missing.append(f"{name} is not shown: it cannot be read ({reason}).")
    return element("div", parts), missing


def _table(run, path):
    caption = f"Results by class, {run.name}"
    text = element("pre", path.read_text(encoding="utf-8").rstrip())
    scroll = element("div", text, class_="scroll", tabindex="0", role="region", aria_label=caption)
    return element("figure", scroll, element("figcaption", caption))


def _pictures(run, path):
    """Embeds the pictures as a JPEG, because a PNG of a grid of photos takes megabytes."""
    with Image.open(path) as image:
        photo = image.convert("RGB")
    photo.thumbnail((_MAX_WIDTH, 10 * _MAX_WIDTH))
    buffer = io.BytesIO()
    photo.save(buffer, "jpeg", quality=85)
    caption = f"Predictions of {run.name} for images of the evaluation set"
    embedded = picture(buffer.getvalue(), "jpeg", caption)
    return element("figure", embedded, element("figcaption", caption))
