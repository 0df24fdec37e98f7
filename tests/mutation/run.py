"""Mutation check: plants each fault of `faults.py` in a copy of the checkout and runs the default tests on it.

    python tests/mutation/run.py [--only=3,7] [--workers=2] [--out=runs/mutation.jsonl] [--near_only]

The nearest tests run first, then, if none fails, the whole default tier. Before that, the nearest tests run without a
fault, and those that fail anyway don't count. A test of the whole tier counts only if it fails a second time with the
fault and passes without it.

Each result is appended to `--out` at once, so the same command resumes an interrupted check; faults in `--only` are
checked again. Results are for one state of the checkout: use another `--out` after a change of the package or tests.
The exit status is 0 if every fault is caught.
"""

import argparse
import concurrent.futures
import json
import pathlib
import signal
import sys
import threading
import time

from copies import ROOT, copied, end_all_runs
from fault import Fault
from faults import FAULTS

CAUGHT, SURVIVED, BROKEN, TIMED_OUT = "caught", "SURVIVED", "broken", "timed out"
_WHOLE_TIER = ["-x", "--dist", "loadfile", "-n", "1"]
_BASELINE_LIMIT = 7200.0


def main() -> int:
    """Checks the faults that have no result yet, prints the table and returns the exit status."""
    options = _parse_arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results = Results(options.out)
    chosen = options.only or list(FAULTS)
    pending = [n for n in chosen if options.only or not results.is_done(n, near_only=options.near_only)]
    try:
        red = red_near_tests(pending, results) if pending else []
        check_all(pending, red, results, options)
    except KeyboardInterrupt:
        end_all_runs()
        print("Interrupted. Repeat the command to continue.", file=sys.stderr)
        return 130
    print(table(chosen, results))
    return int(any(results.of(n).get("result") != CAUGHT for n in chosen))


def _parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    numbers = lambda text: [int(part) for part in text.split(",")]  # noqa: E731
    parser.add_argument("--only", type=numbers, default=[], help="numbers of the faults to check, such as 3,7")
    parser.add_argument("--workers", type=int, default=1, help="faults to check at a time")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "runs/mutation.jsonl", help="JSON lines of results")
    parser.add_argument("--near_only", action="store_true", help="run the nearest tests only")
    parser.add_argument("--limit", type=float, default=3600.0, help="time limit per fault, in seconds")
    options = parser.parse_args()
    if unknown := [n for n in options.only if n not in FAULTS]:
        parser.error(f"--only={unknown[0]} is not a fault; they are numbered from 1 to {len(FAULTS)}.")
    return options


class Results:
    """Results in a JSON lines file, the last one of each fault, and the baselines of the nearest tests."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._lock = threading.Lock()
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        *whole, rest = text.split("\n")  # the rest is an incomplete line of a killed check
        self._lines = [json.loads(line) for line in whole]
        if rest:
            path.write_text("".join(f"{line}\n" for line in whole), encoding="utf-8")

    def add(self, line: dict):
        """Appends one line."""
        with self._lock:
            self._lines.append(line)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def of(self, number: int) -> dict:
        """Returns a fault's last result; {} if it has none or was changed since then."""
        fault = FAULTS[number]
        key = (number, fault.file, fault.old, fault.new)
        found = [line for line in self._lines if key == tuple(line.get(k) for k in ("fault", "file", "old", "new"))]
        return found[-1] if found else {}

    def is_done(self, number: int, *, near_only: bool) -> bool:
        """Returns whether a fault needs no further run."""
        line = self.of(number)
        return bool(line) and (near_only or line["result"] != SURVIVED or line["stage"] == "all")

    def red(self, tests: list[str]) -> list[str] | None:
        """Returns the tests that failed without a fault among these files; None if they haven't run yet."""
        found = [line for line in self._lines if set(tests) <= set(line.get("baseline", ()))]
        return found[-1]["red"] if found else None


def near_tests(fault: Fault) -> list[str]:
    """Returns the test files to run first: those named like the file and the row's own, else those of its folder.

    They are relative to the root. Files that don't exist are left out.
    """
    path = pathlib.PurePath(fault.file)
    folder, stem = (path.parent.parent, path.parent.name) if path.stem == "__init__" else (path.parent, path.stem)
    while not _test_files(ROOT / "tests" / folder):
        folder = folder.parent
    files = _test_files(ROOT / "tests" / folder)
    named = [file for file in files if f"{file.stem}_".startswith(f"test_{stem}_")]
    own = [file for name in fault.tests for file in _test_files(ROOT / "tests" / name)]
    return [str(file.relative_to(ROOT)) for file in dict.fromkeys([*named, *own] or files)]


def _test_files(path):
    return sorted(path.glob("test_*.py")) if path.is_dir() else [path] if path.exists() else []


def red_near_tests(numbers: list[int], results: Results) -> list[str]:
    """Runs the nearest tests of these faults without a fault, unless they have run; returns those that fail."""
    tests = sorted({test for number in numbers for test in near_tests(FAULTS[number])})
    if (red := results.red(tests)) is None:
        print(f"baseline: {len(tests)} test files without a fault", flush=True)
        began = time.monotonic()
        with copied(None) as copy:
            outcome = copy.run(tests, began + _BASELINE_LIMIT)
        if outcome.broken or outcome.timed_out:
            sys.exit(f"The baseline failed: {outcome.broken or 'it took too long'}")
        red = [failure["test"] for failure in outcome.failures]
        results.add({"baseline": tests, "red": red, "seconds": round(time.monotonic() - began, 1)})
    if red:
        print(f"baseline: these tests fail without a fault and don't count: {', '.join(red)}", flush=True)
    return red


def check_all(numbers: list[int], red: list[str], results: Results, options):
    """Checks the faults, `options.workers` at a time, and adds their results."""
    with concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
        jobs = {pool.submit(check, FAULTS[n], red, options.limit, options.near_only): n for n in numbers}
        try:
            for job in concurrent.futures.as_completed(jobs):
                number, line = jobs[job], job.result()
                fault = FAULTS[number]
                results.add({"fault": number, "file": fault.file, "old": fault.old, "new": fault.new, **line})
                print(f"{number:>2} {fault.file}: {line['result']} {line['test']} ({line['seconds']} s)", flush=True)
        except BaseException:
            end_all_runs()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def check(fault: Fault, red: list[str], limit: float, near_only: bool) -> dict:
    """Runs the tests on a copy with the fault; returns result, stage ("near" or "all"), test, reason and seconds.

    Args:
        fault: the fault to plant.
        red: tests that fail without a fault. Those of the whole tier are added when they turn up.
        limit: time limit in seconds.
        near_only: whether to run the nearest tests only.
    """
    began, unstable = time.monotonic(), []
    deadline = began + limit
    stages = [("near", ["-x", *near_tests(fault)])] + ([] if near_only else [("all", _WHOLE_TIER)])
    with copied(fault) as copy:
        while True:
            stage, arguments = stages[0]
            outcome = copy.run([*arguments, *(f"--deselect={test}" for test in [*red, *unstable])], deadline)
            failure = outcome.failures[0] if outcome.failures else {"test": "", "reason": outcome.broken}
            if outcome.failures and stage == "all":
                if not copy.run([failure["test"]], deadline).failures:
                    unstable.append(failure["test"])
                    continue
                if _fails_without_fault(failure["test"], deadline):
                    red.append(failure["test"])
                    continue
            if outcome.failures or outcome.broken or outcome.timed_out or len(stages) == 1:
                break
            del stages[0]
    results = {CAUGHT: outcome.failures, BROKEN: outcome.broken, TIMED_OUT: outcome.timed_out, SURVIVED: True}
    result = next(name for name, applies in results.items() if applies)
    line = {"result": result, "stage": stage, "test": failure["test"], "reason": failure["reason"]}
    return {**line, "unstable": unstable, "seconds": round(time.monotonic() - began, 1)}


def _fails_without_fault(test, deadline) -> bool:
    with copied(None) as clean:
        return bool(clean.run([test], deadline).failures)


def table(numbers: list[int], results: Results) -> str:
    """Formats the results as a Markdown table with a summary."""
    lines = ["| number | file | kind | fault | caught by |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join(_cells(number, results.of(number)))} |" for number in numbers]
    found = [results.of(number).get("result", "not checked") for number in numbers]
    counts = ", ".join(f"{found.count(result)} {result}" for result in dict.fromkeys(found))
    return "\n".join([*lines, "", f"{len(numbers)} faults: {counts}"])


def _cells(number, line):
    fault = FAULTS[number]
    where = f"`{line['test']}`" if line.get("test") else line.get("result", "not checked")
    if line.get("result") == SURVIVED:
        where += " the nearest tests" if line["stage"] == "near" else ""
    return [str(number), f"`{fault.file}`", fault.kind, fault.harm, where.replace("|", r"\|")]


if __name__ == "__main__":
    sys.exit(main())
