import re
from dataclasses import replace

import pytest
from engine.toy import Squares

from emslice.engine.failures import MemoryBudgetError
from emslice.engine.plan import check_budget, format_plan, plan_stages
from emslice.errors import ConfigError

GIB = 2**30
SMALL = Squares("/nowhere", 10, name="relabel", peak_bytes=GIB // 2, seconds_per_task=3.0)
BIG = replace(SMALL, name="predict", n_tasks=3, peak_bytes=3 * GIB, resource="GPU")


def test_rows_are_made_from_facts_alone():
    small, big = plan_stages([SMALL, BIG], n_workers=4)
    assert (small.total_bytes, small.seconds) == (2 * GIB, 9.0)
    assert (big.total_bytes, big.seconds, big.resource) == (9 * GIB, 3.0, "GPU")


def test_the_last_line_of_the_table_is_the_whole_run():
    lines = format_plan(plan_stages([SMALL, BIG], n_workers=4)).splitlines()
    cells = [re.split(r" {2,}", line) for line in lines]
    assert cells[2] == ["predict", "GPU", "3", "3.0 GiB", "9.0 GiB", "3 s"]
    assert cells[3] == ["total", "13", "9.0 GiB", "12 s"]
    assert len({len(line) for line in lines[1:]}) == 1


def test_a_budget_that_holds_is_accepted():
    check_budget([SMALL, BIG], memory_bytes=6 * GIB, n_workers=2)


def test_a_task_above_its_workers_memory_is_refused_with_numbers_and_a_remedy():
    with pytest.raises(MemoryBudgetError) as refusal:
        check_budget([SMALL, BIG], memory_bytes=4 * GIB, n_workers=2)
    assert str(refusal.value) == (
        "stage 'predict' needs 3.0 GiB per task but a worker has 2.0 GiB (1.5x too much: 4.0 GiB "
        "for 2 workers). Make block smaller, or set workers to 1."
    )
    assert isinstance(refusal.value, ConfigError)
    assert refusal.value.exit_code == 2


def test_a_task_above_all_memory_is_refused_with_another_remedy():
    with pytest.raises(MemoryBudgetError, match="use a machine with more memory"):
        check_budget([BIG], memory_bytes=2 * GIB, n_workers=2)
