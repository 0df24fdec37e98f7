"""`keras-bot report` as a user runs it: a real network's results, missing files, rejected flags, a browser."""

import base64
import html
import io
import json
import re
import shutil
import subprocess
import zlib

import numpy as np
import pytest
from builders import tiny_recipe, write_npz, write_run
from PIL import Image
from processes import expect_misuse, run_command
from tiny_training import tiny_network, write_network

EVIL = "<script>document.title='evil'</script>"
NAMES = (EVIL, "b", "c", "d")
IMAGES = 30  # no multiple of the batch


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A folder with a data set of noise and a run directory of an untrained network."""
    folder = tmp_path_factory.mktemp("report")
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 4, IMAGES)
    arrays = {f"x_{part}": draw.integers(0, 256, (IMAGES, 16, 16, 3), np.uint8) for part in ("train", "test")}
    write_npz(folder / "set.npz", **arrays, y_train=labels, y_test=labels[::-1], class_names=np.array(NAMES))
    recipe = tiny_recipe(dataset=str(folder / "set.npz"), num_classes=0, decay_epochs=(1,), label_smoothing=0.1)
    write_run(folder / "run", recipe, **write_network(folder / "run", recipe, tiny_network()))
    return folder


@pytest.fixture
def run(example, tmp_path):
    """A copy of the run that a test may damage."""
    return shutil.copytree(example / "run", tmp_path / "run")


def report(*arguments):
    """Returns the printed results, the output to stderr and the page; the exit code must be 0."""
    output = next(a.removeprefix("--output=") for a in map(str, arguments) if a.startswith("--output="))
    done = run_command("report", *arguments)
    with open(output, encoding="utf-8") as file:
        return done.result["runs"], done.err, file.read()


def test_the_page_shows_the_networks_predictions(example, tmp_path):
    from keras_bot.data.augment.color import MEAN, STD
    from keras_bot.model_files import load_network

    results, warnings, page = report(example / "run", f"--output={tmp_path / 'page.html'}")
    arrays = np.load(example / "set.npz")
    images = ((arrays["x_test"] - np.array(MEAN)) / np.array(STD)).astype(np.float32)
    logits = np.asarray(load_network(example / "run/model.keras")(images), float)
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels, answers, sure = arrays["y_test"], logits.argmax(axis=1), odds.max(axis=1)
    right = answers == labels
    bins = [(sure > m / 15) & (sure <= (m + 1) / 15) for m in range(15)]
    expected = {
        "top1": right.mean(),
        "top5": 1.0,
        "mean_confidence": sure.mean(),
        "ece": sum(abs(right[b].mean() - sure[b].mean()) * b.mean() for b in bins if b.any()),
        "nll": -np.log(odds[np.arange(IMAGES), labels]).mean(),
        "mean_gap": np.mean([max(row) - (sum(row) - max(row)) / 3 for row in logits]),
    }
    assert results["run"] == pytest.approx(expected, rel=1e-4)
    shown = [
        f"{results['run']['ece'] * 100:.2f} %",
        f"{results['run']['nll']:.4f}",
        f"{results['run']['mean_gap']:.2f}",
        "3.296",
    ]
    assert [part for part in shown if part not in page] == []  # log(3 * 0.9 / 0.1)
    assert warnings == "" and EVIL not in page and "&lt;script&gt;document" in page
    worst = max(np.flatnonzero(~right), key=lambda i: sure[i])
    first = re.search(r'<img src="data:image/png;base64,([^"]+)" alt="(test\[\d+\])', page)
    assert first[2] == f"test[{worst}]"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(first[1]))))
    np.testing.assert_array_equal(pixels, arrays["x_test"][worst])


def test_flags_can_select_other_data_which_must_exist(example, tmp_path):
    arrays = dict(np.load(example / "set.npz"))
    write_npz(tmp_path / "few.npz", **arrays | {name: arrays[name][:9] for name in ("x_test", "y_test")})
    output = f"--output={tmp_path / 'page.html'}"
    _, _, page = report(example / "run", f"--dataset={tmp_path / 'few.npz'}", output)
    assert "model.keras of run on " in page and "few.npz test" in page and "in 9 images" in page
    error = expect_misuse("report", example / "run", "--dataset=gone.npz", f"--output={tmp_path / 'other.html'}")
    assert "gone.npz" in error and not (tmp_path / "other.html").exists()


def test_without_data_or_network_the_page_shows_the_run_directory(run, tmp_path):
    flags = (run / "run.flags").read_text()
    (run / "run.flags").write_text(re.sub("--dataset=.*", "--dataset=gone.npz", flags))
    other = shutil.copytree(run, tmp_path / "other")
    (other / "run.flags").write_text(flags)
    (other / "model.keras").unlink()
    (other / "history.csv").write_text("epoch,loss\n1,many\n")
    results, warnings, page = report(run, other, f"--output={tmp_path / 'page.html'}")
    lines = warnings.strip().splitlines()
    assert len(lines) == 3 and all(": No calibration" in line or ": No curves" in line for line in lines)
    assert "No file 'gone.npz'" in lines[0] and "history.csv" in lines[1]
    assert "A finished run contains model.keras" in lines[2]
    assert results["run"]["top1"] == 0.3 and "No file &#x27;gone.npz" in page.replace("'", "&#x27;")
    assert "Loss by epoch" in page and "Calibration" not in page


def write(name, text):
    return lambda run: (run / name).write_text(text)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (None, [], "Pass at least one run directory"),
        (None, ["{run}", "--output={run}/no/page.html"], "/no/page.html does not exist. Create {run}/no first"),
        (None, ["{run}", "--output={run}"], "--output={run} is a directory"),
        (None, ["{run}", "--output={run}/model.keras"], "--output must end in .html"),
        (None, ["{run}", "{run}/../run"], "{run}/../run was given twice"),
        (None, ["{run}/.."], "is not a run directory: it contains no run.flags"),
        (None, ["nowhere"], "nowhere is not a run directory"),
        (None, ["{run}", "--outptu=x.html"], "Did you mean --output?"),
        (lambda run: (run / "metrics.json").unlink(), ["{run}"], "metrics.json"),
        (write("metrics.json", '{"result": '), ["{run}"], "Cannot read {run}/metrics.json"),
        (write("metrics.json", "[]"), ["{run}"], "Cannot read {run}/metrics.json"),
        (
            write("metrics.json", '{"result": {}, "dataset": {"class_names": ["a"]}}'),
            ["{run}"],
            "result has an invalid value",
        ),
        (
            write("metrics.json", '{"result": {"best_top1": "x"}, "dataset": {"class_names": ["a"]}}'),
            ["{run}"],
            "result.best_top1 has an invalid value",
        ),
        (
            write("run.flags", "--nonsense=1\n"),
            ["{run}"],
            "{run}/run.flags was changed after training: Unknown flag --nonsense",
        ),
        (
            write("run.flags", "junk\n"),
            ["{run}"],
            "{run}/run.flags was changed after training: Unexpected argument 'junk'",
        ),
        (write("run.flags", "\n"), ["{run}"], "It contains no flags"),
        (write("seed0.flags", ""), ["{run}/row"], "`keras-bot train` creates one"),
        (lambda run: (run / "out/row/seed0").mkdir(parents=True), ["{run}/out"], "`keras-bot train` creates one"),
        (
            lambda run: shutil.copytree(run, run / "out/row/seed0"),
            ["{run}/out"],
            "it contains no run.flags. Pass one of its runs, such as {run}/out/row/seed0.",
        ),
    ],
)
def test_misuse_is_one_line_and_exit_code_2(change, arguments, message, run, monkeypatch):
    monkeypatch.chdir(run)
    if change:
        change(run)
    assert message.format(run=run) in expect_misuse("report", *(argument.format(run=run) for argument in arguments))
    assert not list(run.glob("*.html"))


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MEASURE = """<script>
const heads = document.querySelector("table.sortable").tHead.rows[0].cells;
heads[0].querySelector("button").click();
parent.postMessage({
  width: document.documentElement.scrollWidth,
  dark: matchMedia("(prefers-color-scheme: dark)").matches,
  sorted: heads[0].getAttribute("aria-sort"),
  title: document.title,
  text: document.body.innerText,
}, "*");
</script></body>"""
FRAME = """<!doctype html><body style="margin:0">
<iframe src="measured.html" style="width:{width}px; height:900px; border:0"></iframe>
<script>onmessage = event => document.body.dataset.measured = JSON.stringify(event.data);</script></body>"""


def browse(page, *options):
    """Returns the page after its scripts, the console messages, and a screenshot, all from Chromium."""
    picture = page.with_suffix(".png")
    common = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    common += [f"--user-data-dir={page.parent / 'profile'}", "--virtual-time-budget=2000", *options]
    shown = subprocess.run([*common, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120)
    subprocess.run([*common, f"--screenshot={picture}", page.as_uri()], capture_output=True, timeout=120, check=True)
    return shown.stdout, re.findall(r".*CONSOLE.*", shown.stderr), np.asarray(Image.open(picture).convert("RGB"))


@pytest.mark.thorough
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: `apt-get install chromium` gives one")
def test_a_browser_shows_the_page_in_wide_and_narrow_windows(example, tmp_path):
    runs = [
        example / "run",
        shutil.copytree(example / "run", tmp_path / "a_run_with_a_rather_long_name_of_its_own"),
    ]
    _, _, page = report(*runs, f"--output={tmp_path / 'page.html'}")
    (tmp_path / "measured.html").write_text(page.replace("</body>", MEASURE), encoding="utf-8")
    for width, *options in ((1200,), (400,), (400, "--blink-settings=preferredColorScheme=0")):
        (tmp_path / "frame.html").write_text(FRAME.format(width=width))  # a window can't be narrower than 500
        shown, messages, _ = browse(tmp_path / "frame.html", f"--window-size={max(width, 500)},900", *options)
        measured = json.loads(html.unescape(re.search(r'data-measured="([^"]*)"', shown)[1]))
        assert messages == []
        assert measured["width"] == width and measured["sorted"] == "ascending" and measured["dark"] == bool(options)
        assert measured["title"].startswith("2 runs: ")  # the class's script did not run
        assert "Most confident mistakes" in measured["text"] and EVIL in measured["text"]
        shown, messages, pixels = browse(tmp_path / "page.html", f"--window-size={width},900", *options)
        assert messages == [] and "Reliability diagram of" in shown
        assert pixels.shape == (900, width, 3) and len(zlib.compress(pixels.tobytes())) > 10_000, "an empty picture"
        assert (pixels.mean() < 100) == bool(options)


@pytest.mark.thorough
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: `apt-get install chromium` gives one")
def test_a_browser_fetches_nothing_for_the_page(run, tmp_path):
    _, _, page = report(run, f"--output={tmp_path / 'page.html'}")
    more = page.replace("</body>", "<img src='https://example.invalid/x.png'></body>")
    (tmp_path / "page.html").write_text(more, encoding="utf-8")
    assert "Content Security Policy" in browse(tmp_path / "page.html")[1][0]
