"""Add columns to device_registry.

Written by `python -m include.contracts revision`; history from here on, so never written again.
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
select ops.add_column('device_registry', 'firmware_version', 'text', 'Firmware that the device runs in this period; absent where the registry does not follow it.');
select ops.add_column('device_registry', 'time_zone_name', 'text', 'Time zone of the facility, by its name in the IANA database; absent where the registry does not say.');
"""
    )
