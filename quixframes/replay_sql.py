"""A replay as a table of DuckDB, which is larger than memory where it has to be.

The rows go through a dataset of Parquet files in a temporary folder: DuckDB reads of it what a query needs, and columns
that come later in a topic are in the table all the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from quixframes.errors import SettingsError

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

__all__ = ["query", "write_table"]

_Write = Callable[[Path], object]


def query(write: _Write, sql: str) -> pd.DataFrame:
    """What a query gives of the table ``replay``."""
    with _connected(":memory:") as connection, _staged(write, connection) as rows:
        rows.create_view("replay")
        return connection.execute(sql).df()


def write_table(write: _Write, database: Path, table: str, *, overwrite: bool) -> int:
    """Make a table of a database, as a whole or not at all; how many rows it has.

    Raises:
        SettingsError: there is one of that name.
    """
    with _connected(str(database)) as connection:
        there = [row[0] for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        if table in there and not overwrite:
            raise SettingsError(f"{database} has a table {table!r}: overwrite=True puts the replay in its place")
        with _staged(write, connection) as rows:
            name = '"' + table.replace('"', '""') + '"'
            connection.begin()
            if table in there:
                connection.execute(f"DROP TABLE {name}")
            rows.create(name)
            connection.commit()
            return int(rows.shape[0])


@contextmanager
def _connected(database: str) -> Iterator[duckdb.DuckDBPyConnection]:
    try:
        import duckdb
    except ModuleNotFoundError as exc:
        raise SettingsError('SQL needs duckdb, which is not installed: pip install "quixframes[sql]"') from exc
    with duckdb.connect(database) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


@contextmanager
def _staged(write: _Write, connection: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyRelation]:
    """The rows, where they lie meanwhile. Times have microseconds, since few functions of DuckDB take nanoseconds."""
    with tempfile.TemporaryDirectory(prefix="quixframes-") as folder:
        write(Path(folder))
        if any(Path(folder).glob("*.parquet")):
            rows = connection.read_parquet(f"{folder}/*.parquet", union_by_name=True)
            yield rows.project("* REPLACE (CAST(time AS TIMESTAMP WITH TIME ZONE) AS time)")
        else:
            yield connection.sql("SELECT NULL::TIMESTAMP WITH TIME ZONE AS time, NULL::VARCHAR AS stream WHERE false")
