"""Order the identity of telemetry by event time, so that a load touches neighbouring pages of the index, however much is stored."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("drop index raw.device_telemetry_identity")
    op.execute("create unique index device_telemetry_identity on raw.device_telemetry (event_at, event_id)")
