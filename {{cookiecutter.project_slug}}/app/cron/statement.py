"""A statement of SQL in the form of each database that the store may be in."""

from sqlalchemy import Connection, TextClause, text

# What stands in the JSON of a batch, on Postgres: numbers but for these. SQLite's JSON tells by
# itself.
TYPES = {"name": "text", "outcome": "text", "note": "text", "error": "text", "forced": "boolean"}
NUMBER = "bigint"

OF_POSTGRES = "jsonb_to_recordset(CAST(:batch AS jsonb))"


class Statement:
    """A statement that SQLite and Postgres both understand.

    With `batch`, the names of columns, it can use a table `batch` of what the parameter :batch
    holds as JSON: that is where the two differ.
    """

    def __init__(self, statement: str, batch: str = "") -> None:
        columns = batch.split(", ")
        values = ", ".join(f"json_extract(value, '$.{column}') AS {column}" for column in columns)
        types = ", ".join(f"{column} {TYPES.get(column, NUMBER)}" for column in columns)
        tables = {  # no value is in them
            "sqlite": f"SELECT {values} FROM json_each(:batch)",  # noqa: S608
            "postgresql": f"SELECT * FROM {OF_POSTGRES} AS row({types})",  # noqa: S608
        }
        self._forms = {
            database: text(f"WITH batch AS ({table}) {statement}" if batch else statement)
            for database, table in tables.items()
        }

    def on(self, connection: Connection) -> TextClause:
        """The statement in the form of the connection's database."""
        return self._forms[connection.dialect.name]


def is_postgres(connection: Connection) -> bool:
    """Whether the database is Postgres, and not SQLite."""
    return connection.dialect.name == "postgresql"
