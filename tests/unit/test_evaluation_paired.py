"""A paired test of two runs: against figures worked out by hand, and what cannot be compared."""

from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from cvgl_ray.catalog.table import Catalog
from cvgl_ray.cli import cli
from cvgl_ray.errors import InputError
from cvgl_ray.evaluation.metrics import QueryResults
from cvgl_ray.evaluation.paired import mcnemar, paired
from cvgl_ray.evaluation.protocols import Direction
from cvgl_ray.evaluation.query_table import compared, query_table, read_query_table, write_query_table


def images(view, names):
    return Catalog.from_rows({"image_id": name, "uri": "", "view": view, "split": "train"} for name in names)


def results(ranks, gallery=20, model="adapted", names=None):
    """A run's table: 0-based ranks of its queries, each of a spot of its own, -1 for none."""
    ranks = np.array(ranks)
    names = names or [f"q{row}" for row in range(len(ranks))]
    direction = Direction("a->b", images("a", names), images("b", [f"r{row}" for row in range(gallery)]))
    ap = np.where(ranks < 0, 0, 1 / np.maximum(ranks + 1, 1))
    spot = np.where(ranks < 0, -1, np.arange(len(ranks)))
    return query_table(model, direction, QueryResults(ranks, ap, ap, spot))


def test_mcnemar_by_hand():
    assert mcnemar(5, 1) == pytest.approx(2 * (1 + 6) / 2**6)  # 0 or 1 of 6 coins, both tails
    assert mcnemar(3, 3) == mcnemar(0, 0) == 1.0


def test_a_comparison_by_hand():
    first = results([0, 0, 3, 9, 12, 0, -1, 7])
    second = results([0, 1, 0, 0, 0, 0, -1, 0])
    found = compared(first, second)["a->b"]["adapted"]
    one = found["R@1"]
    assert one.first == pytest.approx(300 / 7)
    assert one.second == pytest.approx(600 / 7)
    assert one.difference == pytest.approx(300 / 7)
    assert one.p == pytest.approx(2 * (1 + 5) / 2**5)  # four gained, one lost
    assert -15 < one.low < one.difference < one.high <= 100
    assert found["R@5"].difference == pytest.approx(300 / 7)
    change = 0 - 1 / 2 + 3 / 4 + 9 / 10 + 12 / 13 + 7 / 8
    assert found["AP"].difference == pytest.approx(100 * change / 7)
    # Of the 32 ways to exchange the two runs of the five that changed, those as far from 0.
    parts = np.array([-1 / 2, 3 / 4, 9 / 10, 12 / 13, 7 / 8])
    as_far = [abs(np.dot(signs, parts)) >= change - 1e-9 for signs in product((-1, 1), repeat=5)]
    assert found["AP"].p == pytest.approx(np.mean(as_far), abs=0.01)


def test_queries_of_one_spot_count_as_one_observation():
    """Ten queries of one spot that all are gained say no more than one."""
    first, second = np.zeros((12, 1)), np.ones((12, 1))
    alone = paired(first, second, np.arange(12))[0]
    together = paired(first, second, np.array([0] * 10 + [1, 2]))[0]
    assert alone.p == pytest.approx(2 / 2**12)
    assert together.p == pytest.approx(2 / 2**3, abs=0.02)


def test_a_run_does_not_differ_from_itself():
    same = compared(results([0, 4, 2]), results([0, 4, 2]))["a->b"]["adapted"]
    assert {(one.difference, one.low, one.high, one.p) for one in same.values()} == {(0.0, 0.0, 0.0, 1.0)}


def test_the_order_of_the_queries_does_not_matter():
    names = ["c", "a", "b"]
    first = results([0, 5, 1], names=names)
    second = results([1, 0, 5], names=["b", "c", "a"])
    assert compared(first, second)["a->b"]["adapted"]["AP"].difference == 0


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (results([0, 1], names=["q0", "x"]), "asked other queries in a->b: 1 of the first's 2 and 1 of"),
        (results([0, 1], gallery=30), "searched other galleries in a->b, of 20 and 30 references"),
        (results([0, -1]), "searched other galleries"),
        (results([0, 1], model="aligned"), "no direction and model in common: a->b adapted against a->b al"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(second, message):
    with pytest.raises(InputError, match=message):
        compared(results([0, 1]), second)


def test_the_command_reads_folders_and_metrics_json(tmp_path):
    for name, ranks in (("a", [0, 3, 1]), ("b", [0, 0, 0])):
        (tmp_path / name).mkdir()
        write_query_table(tmp_path / name / "ranks.parquet", [results(ranks), results(ranks, model="frozen")])
    (tmp_path / "b" / "metrics.json").write_text("{}")
    ran = CliRunner().invoke(cli, ["compare", str(tmp_path / "a"), str(tmp_path / "b" / "metrics.json")])
    assert ran.exit_code == 0, ran.output
    [row] = [line for line in ran.output.splitlines() if "adapted" in line and "R@1 " in line]
    assert [cell.strip() for cell in row.split("|")[4:9]] == [
        "33.3",
        "100.0",
        "+66.7",
        "+0.0 to +100.0",
        "0.5000",
    ]


def test_a_run_without_results_per_query_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"ranks\.parquet does not exist: give the folders of two runs"):
        read_query_table(tmp_path)
    (tmp_path / "ranks.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot be read"):
        read_query_table(tmp_path)


def test_what_is_written_is_read_again(tmp_path):
    table = results([3, -1, 0])
    write_query_table(tmp_path / "ranks.parquet", [table])
    found = read_query_table(tmp_path)
    assert found.equals(table)
    assert found["rank"].to_pylist() == [4, None, 1]
    assert isinstance(found, pa.Table)
