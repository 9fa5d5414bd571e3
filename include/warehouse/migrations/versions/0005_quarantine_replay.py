"""Give the quarantine a way out: batches of replays, what became of each row, and the history of what was tried."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# No foreign keys from rows to batches, as in 0001: a million rows of one replay would be checked one by one, and neither table is ever deleted from.
REPLAY = """
alter table ops.batch add column kind text not null default 'load' check (kind in ('load', 'replay'));
comment on table ops.batch is 'One committed transaction that landed files (load) or rows from the quarantine (replay). Ids of one stream become visible in order; ids of different streams do not.';

create table ops.file_replay (
    batch_id bigint not null references ops.batch deferrable initially deferred,
    file_id bigint not null references ops.file,
    is_whole boolean not null,
    contract_version text not null,
    landed bigint not null,
    accepted bigint not null,
    quarantined bigint not null,
    duplicate bigint not null,
    corrected bigint not null,
    primary key (batch_id, file_id),
    check (landed = accepted + quarantined + duplicate + corrected)
);
create index on ops.file_replay (file_id);
comment on table ops.file_replay is 'What a replay did with rows of a file; the line of the file in ops.file stays as it was when the file landed. is_whole: the file had been quarantined whole, could now be read, and these are all of its rows; quarantined counts rows that are new in ops.quarantine. Otherwise quarantined counts rows that failed again.';

alter table ops.quarantine
    add column replay_batch_id bigint,
    add column outcome text check (outcome in ('accepted', 'duplicate', 'corrected', 'read')),
    add check ((state = 'replayed') = (replay_batch_id is not null)),
    add check ((replay_batch_id is null) = (outcome is null));
create index on ops.quarantine (stream, file_id) where state = 'open';
create index on ops.quarantine (replay_batch_id) where replay_batch_id is not null;
comment on column ops.quarantine.codes is 'Why the row was refused when it came here. What later replays said is in ops.quarantine_event.';
comment on column ops.quarantine.errors is 'Every reason of that verdict.';
comment on column ops.quarantine.outcome is 'What a replay made of the row: accepted, duplicate or corrected; read for a file that had been quarantined whole.';

create table ops.quarantine_event (
    event_id bigint generated always as identity primary key,
    quarantine_id bigint not null,
    action text not null check (action in ('replay', 'discard', 'reopen')),
    outcome text check (outcome in ('failed', 'accepted', 'duplicate', 'corrected', 'read')),
    done_by text not null,
    happened_at timestamptz not null default clock_timestamp(),
    batch_id bigint,
    contract_version text,
    codes text[],
    errors jsonb,
    reason text,
    check ((action = 'replay') = (outcome is not null and batch_id is not null and contract_version is not null)),
    check ((outcome is not distinct from 'failed') = (codes is not null and errors is not null)),
    check ((action = 'replay') = (reason is null))
);
create index on ops.quarantine_event (quarantine_id, event_id);
comment on table ops.quarantine_event is 'What people did with a quarantined row after it came here: each replay with its verdict, each discard and reopening with its reason. Never changed or pruned.';
"""

KNOWN_AT = """
do $comments$
declare
    raw_table regclass;
begin
    for raw_table in select c.oid from pg_class as c where c.relnamespace = 'raw'::regnamespace and c.relkind = 'p' loop
        execute format(
            'comment on column %s._known_at is %L', raw_table,
            'Since when the house could have known it: the arrival; for a replayed row the replay; for imported history event time plus its mapping''s delay.'
        );
    end loop;
end
$comments$;
"""

# Originals and errors may hold personal data. dbt needs neither, so from here on its role may not read them; analysts never could.
GRANTS = """
grant select, insert on ops.file_replay, ops.quarantine_event to tidemark_loader;
grant maintain on ops.file_replay, ops.quarantine_event to tidemark_loader;
grant select on ops.file_replay to tidemark_transformer, tidemark_ml, tidemark_analyst, tidemark_api;
revoke select on ops.quarantine from tidemark_transformer;
grant select (quarantine_id, stream, tenant_id, file_id, row_number, batch_id, codes, arrived_at, quarantined_at, state, replay_batch_id, outcome)
    on ops.quarantine to tidemark_transformer;
"""


def upgrade() -> None:
    op.execute(REPLAY)
    op.execute(KNOWN_AT)
    op.execute(GRANTS)
