"""Contracts: what every object of one kind must do, checked for all of them.

Each test file here begins with a table of rows, one row per object, and continues with the checks that every row must
pass. A new trick needs one row in the table of its kind. `test_completeness.py` fails for a class without a row.

A row gives arguments that all differ from the defaults, so that an argument that a config drops changes the copy, and
the defaults themselves, so that a changed default is noticed. `checks.py` contains what several kinds share.
"""

import pytest

pytest.register_assert_rewrite("contracts.checks")
