from datetime import datetime

import pyarrow as pa
import pytest
from pyarrow import parquet

from contracts.errors import DatasetError
from streams.datasets.ebnerd import Ebnerd


def at(second):
    return datetime(2023, 5, 18, 0, 0, second)  # noqa: DTZ001 - as the files have it


@pytest.fixture
def folder(tmp_path):
    behaviors = {
        "impression_time": [at(5), at(3)],
        "user_id": [1, 2],
        "article_ids_inview": [[10, 11], [10]],
        "article_ids_clicked": [[11], []],
    }
    history = {"user_id": [1, 2], "impression_time_fixed": [[at(1), at(4)], []], "article_id_fixed": [[7, 8], []]}
    types = pa.schema(
        [
            ("user_id", pa.uint32()),
            ("impression_time_fixed", pa.large_list(pa.timestamp("us"))),
            ("article_id_fixed", pa.large_list(pa.int32())),
        ]
    )
    parquet.write_table(pa.table(behaviors), tmp_path / "train_behaviors.parquet")
    parquet.write_table(pa.table(history, schema=types), tmp_path / "train_history.parquet")
    return tmp_path


def test_reads_and_impressions_are_merged_by_time(folder):
    interactions = [e for e in Ebnerd(folder).events() if hasattr(e, "action")]
    assert [(e.user, e.item, e.action) for e in interactions] == [
        ("1", "7", "read"),
        ("2", "10", "skip"),
        ("1", "8", "read"),
        ("1", "10", "skip"),
        ("1", "11", "click"),
    ]
    assert [e.event_ms for e in interactions] == sorted(e.event_ms for e in interactions)


def test_without_the_history_there_are_only_impressions(folder):
    (folder / "train_history.parquet").unlink()
    assert Ebnerd(folder).count() == 3 + 2


def test_a_file_that_is_not_parquet_is_named(folder):
    (folder / "train_behaviors.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match=r"train_behaviors\.parquet"):
        Ebnerd(folder)
