"""What a sweep writes down of its trials, and whom it chooses by it."""

import json
from pathlib import Path

import pytest

from cvgl_ray.errors import InputError
from cvgl_ray.tuning.choice import choose
from cvgl_ray.tuning.journal import SCORE, Journal, Record, read_journal


def test_a_journal_that_was_cut_off_is_mended_and_another_file_refused(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    whole = json.dumps({"trial": 0, "rounds": 1, "scalars": {SCORE: 0.5}}) + "\n"
    path.write_text(whole + '{"trial": 0, "ended": "comp')
    records = Journal(path, {0: 1}).records
    assert (records[0].rounds, records[0].score, records[0].ended) == (1, 0.5, None)
    assert path.read_text() == whole
    path.write_text("trials\n")
    with pytest.raises(InputError, match="line 1 is no report"):
        read_journal(path)


def test_a_trial_is_judged_by_the_round_that_is_kept() -> None:
    for scores, kept in (([0.5, 0.8, 0.79], 0.79), ([0.5, 0.8, 0.6], 0.8)):
        assert Record({number: {SCORE: score} for number, score in enumerate(scores, 1)}).score == kept


def test_a_trial_is_noted_round_by_round_and_so_is_its_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "trials.jsonl", {0: 2, 1: 2, 2: 2})
    for number, done, score in ((0, 1, 0.5), (0, 1, 0.9), (0, 2, 0.6), (1, 1, 0.7)):  # a round told twice
        journal.report(number, done, {SCORE: score, "time/e_step_s": 1.0}, seconds=1.0)
    for number, reason in ((0, ""), (1, ""), (2, "no adapter fits")):
        journal.end(number, reason)
    for records in (journal.records, read_journal(journal.path)):
        assert records == {
            0: Record({1: {SCORE: 0.5}, 2: {SCORE: 0.6}}, "complete"),
            1: Record({1: {SCORE: 0.7}}, "stopped"),
            2: Record({}, "failed", "no adapter fits"),
        }


def test_the_best_of_the_complete_trials_is_chosen() -> None:
    records = {
        number: Record({1: {SCORE: score}}, ended)
        for number, (score, ended) in enumerate(
            [(0.5, "complete"), (0.9, "stopped"), (0.7, "complete"), (0.7, "complete")]
        )
    }
    assert choose(records) == 2
    with pytest.raises(InputError, match="no trial of the sweep ended well; the first failure: no room"):
        choose({0: Record({}, "failed", "no room"), 1: records[1]})
