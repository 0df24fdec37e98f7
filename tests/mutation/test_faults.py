"""The table of the mutation check fits the package; `python tests/mutation/run.py` runs the check itself."""

import collections
import pathlib

import pytest
from fault import AREAS, KINDS
from faults import FAULTS
from run import BROKEN, CAUGHT, SURVIVED, Results, near_tests

PACKAGE = pathlib.Path(__file__).parents[2] / "keras_bot"
LEAST = {"tricks": 12, "models": 8, "data": 12, "training": 12, "checkpoints": 6, "export": 4}


@pytest.mark.parametrize("number", FAULTS)
def test_each_fault_can_be_planted_once_and_compiles(number):
    fault = FAULTS[number]
    source = (PACKAGE / fault.file).read_text(encoding="utf-8")
    assert fault.plant(source) != source
    assert fault.harm and fault.seen


def test_there_are_sixty_different_faults_of_all_areas_and_kinds():
    assert len({(fault.file, fault.old) for fault in FAULTS.values()}) == len(FAULTS) == 60
    areas = collections.Counter(fault.area for fault in FAULTS.values())
    assert areas.keys() == set(AREAS)
    assert all(areas[area] >= least for area, least in LEAST.items())
    kinds = collections.Counter(fault.kind for fault in FAULTS.values())
    assert kinds.keys() == set(KINDS) and max(kinds.values()) <= min(kinds.values()) + 1


def test_the_nearest_tests_are_those_named_like_the_file():
    assert "tests/tricks/test_mixup.py" in near_tests(FAULTS[5])
    assert all(near_tests(fault) for fault in FAULTS.values())


def test_an_interrupted_check_resumes_after_its_last_whole_result(tmp_path):
    path = tmp_path / "results.jsonl"
    keys = {n: {"fault": n, **{key: getattr(FAULTS[n], key) for key in ("file", "old", "new")}} for n in (1, 2, 3, 4)}
    for number, result, stage in ((1, CAUGHT, "near"), (2, SURVIVED, "near"), (3, BROKEN, "near"), (4, CAUGHT, "all")):
        Results(path).add({**keys[number], "result": result, "stage": stage})
    path.write_text(path.read_text()[:-10])  # killed while it wrote the last one
    results = Results(path)
    assert [n for n in keys if results.is_done(n, near_only=False)] == [1, 3]
    assert [n for n in keys if results.is_done(n, near_only=True)] == [1, 2, 3]
    results.add({**keys[4], "old": "text of an earlier version", "result": CAUGHT, "stage": "near"})
    assert not Results(path).is_done(4, near_only=False)
