"""What measurements say together: ratios of neighbours, medians, verdicts."""

import pytest

from opendata_ops.bench import bare, report
from opendata_ops.bench.findings import BROKEN, MET, MISSED, TOLD, Finding, compared, interleaved, judged, simple
from opendata_ops.bench.meter import Cost, measured
from opendata_ops.bench.ratios import Spread, per_row, ratios
from pipelines.errors import DataError


def test_a_ratio_is_taken_pair_by_pair():
    # a machine that becomes ten times slower in the middle changes no ratio
    assert ratios([1, 10, 1], [2, 20, 3]) == Spread(2, 2, 3)


def test_a_pair_that_lacks_a_side_is_no_pair():
    with pytest.raises(ValueError, match="2 measurements on one side, 1 on the other"):
        ratios([1, 2], [1])
    with pytest.raises(ValueError, match="nothing was measured"):
        Spread.of([])


def test_microseconds_a_row_are_of_the_median():
    assert per_row([0.5, 0.1, 9], 1_000) == 500


def test_a_figure_is_judged_on_its_own_side_of_the_target():
    assert judged(0.8, 0.8, at_least=True) == MET
    assert judged(0.79, 0.8, at_least=True) == MISSED
    assert judged(128, 128, at_least=False) == MET
    assert judged(129, 128, at_least=False) == MISSED
    assert judged(5, None, at_least=True) == TOLD


def test_sides_take_turns_and_who_begins_changes():
    order = []
    costs = iter(range(100))

    def side(name):
        def measure():
            order.append(name)
            return Cost(seconds=next(costs))

        return measure

    ours, theirs, other = interleaved(3, side("ours"), side("theirs"), side("other"))
    assert order == ["ours", "theirs", "other", "other", "theirs", "ours", "ours", "theirs", "other"]
    assert [cost.seconds for cost in ours] == [0, 5, 6]
    assert [cost.seconds for cost in theirs] == [1, 4, 7]
    assert len(other) == 3


def test_a_comparison_tells_the_cpu_of_both_sides():
    ours = [Cost(2, client=1, database=3), Cost(4, client=1, database=3)]
    theirs = [Cost(1, client=0.5, database=None), Cost(3, client=0.5, database=None)]
    found = compared("first_load", "first load", "bare COPY", 1_000_000, ours, theirs, 0.8)
    assert (found.figure, found.state, found.pairs) == (0.625, MISSED, 2)
    assert found.cpu_per_row == (4, 0.5)
    assert found.fails


def test_the_table_says_what_was_met_missed_or_broke():
    findings = [
        compared("a", "first load", "bare COPY", 1_000, [Cost(1)], [Cost(0.9)], 0.8),
        simple("b", "peak memory", 1_000, 300.0, "MB", 128),
        Finding("c", "JSON", "", 0, BROKEN, words="the source went away"),
    ]
    text = "\n".join(report.lines(findings))
    assert "0.90 x" in text and "≥ 0.80" in text
    assert "≤ 128" in text and "NOT MET" in text
    assert "BROKEN" in text and "the source went away" in text
    assert [finding.fails for finding in findings] == [False, True, True]


def test_the_cpu_of_a_child_is_counted_when_it_has_ended():
    with measured(None) as cost:
        found = bare.in_a_process(lambda: sum(range(3_000_000)))
    assert found == sum(range(3_000_000))
    assert cost.client > 0 and cost.seconds > 0 and cost.database is None


def test_a_baseline_that_fails_is_an_error_and_not_a_fast_one(capfd):
    with pytest.raises(DataError, match="a baseline's process failed"):
        bare.in_a_process(lambda: 1 / 0)
    assert "ZeroDivisionError" in capfd.readouterr().err
