"""Rows of a database, by any SQLAlchemy URL."""

from collections.abc import Iterable

import pandas as pd
import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from fedtrain.core.errors import ConfigError, DataError
from fedtrain.data.tables import Table, table_of


def table(
    source: str,
    text_columns: Iterable[str] | None = None,
    query: str | None = None,
    table_name: str | None = None,
) -> Table:
    """The rows that a query or a whole table gives.

    Args:
      source: SQLAlchemy URL, such as ``"postgresql+psycopg://user@host/bank"``.
      text_columns: Not used: columns have types of their own.
      query: A SELECT statement; or
      table_name: the name of a table or view.
    """
    del text_columns
    if (query is None) == (table_name is None):
        raise ConfigError("SQL needs either query or table_name, not both.")
    try:
        engine = sqlalchemy.create_engine(source)
    except (SQLAlchemyError, ImportError) as error:
        raise DataError(f"The SQLAlchemy URL cannot be used: {error}.") from error
    try:
        with engine.connect() as connection:
            return table_of(_frame(connection, query, table_name))
    except (SQLAlchemyError, ValueError) as error:
        # The URL is rendered without its password.
        shown = engine.url.render_as_string(hide_password=True)
        raise DataError(f"{shown} cannot be read: {error}") from error
    finally:
        engine.dispose()


def _frame(
    connection: sqlalchemy.Connection, query: str | None, table_name: str | None
) -> pd.DataFrame:
    if query is not None:
        return pd.read_sql_query(sqlalchemy.text(query), connection)
    return pd.read_sql_table(str(table_name), connection)
