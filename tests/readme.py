"""What a README tells its readers to write, and what they may write besides: a migration."""

import re
from pathlib import Path


def blocks(readme: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", readme.read_text("utf-8"), re.M | re.S)


def blocks_of_files(service: Path) -> list[str]:
    """Return the blocks of the service's README that are whole files, their path on top."""
    return [block for block in blocks(service / "README.md", "python") if block.startswith("# ")]


def first_job(service: Path) -> list[str]:
    """Return those by which its README adds a job: the job, its place in JOBS, and its test."""
    return blocks_of_files(service)[:3]


def asking_job(service: Path) -> list[str]:
    """Return those of the job that asks another service: table and client, job, and override."""
    return blocks_of_files(service)[3:6]


def session_job(service: Path) -> list[str]:
    """Return those of the job with an async session: the session, and the job."""
    return blocks_of_files(service)[6:]


def write(files: list[str], service: Path) -> None:
    """Write such blocks to where they belong."""
    for file in files:
        path, _, text = file.removeprefix("# ").partition("\n")
        (service / path).write_text(text, "utf-8")


TABLE_MIGRATION = '''"""The table of rates."""

import sqlalchemy as sa
from alembic import op

revision = "a7ab1e"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rates",
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("rate", sa.Float(), nullable=False),
        sa.Column("fetched_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("currency"),
    )


def downgrade() -> None:
    op.drop_table("rates")
'''
