"""Keep what was said before a correction, which copies are in conflict, and when a file was published."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
alter table ops.file add column published_at timestamptz;
comment on column ops.file.published_at is
    'When the publisher issued the file, where its mapping finds that in the file. Decides between copies instead of the arrival. NULL: the arrival decides.';

alter table ops.quarantine add column event_id bytea, add column content_hash bytea, add check ((event_id is null) = (content_hash is null));
create index on ops.quarantine (stream, event_id) where event_id is not null;
comment on column ops.quarantine.event_id is 'Event of a copy that is here because it says something else than the first one (code conflict); NULL where a row has another fault.';
comment on column ops.quarantine.content_hash is 'What such a copy says, as raw._content_hash; of each content of an event the first copy is here.';

create table ops.correction (
    correction_id bigint generated always as identity primary key,
    stream text not null,
    tenant_id text not null,
    event_id bytea not null,
    step integer not null check (step > 0),
    key jsonb not null,
    is_applied boolean not null,
    old_content jsonb not null,
    new_content jsonb not null,
    old_known_from timestamptz not null,
    old_known_to timestamptz,
    new_known_from timestamptz not null,
    old_content_hash bytea not null,
    new_content_hash bytea not null,
    old_file_id bigint references ops.file,
    old_row_number integer,
    new_file_id bigint references ops.file,
    new_row_number integer,
    batch_id bigint not null,
    recorded_at timestamptz not null default clock_timestamp(),
    unique (stream, event_id, step),
    check (is_applied = false or old_known_to is not null)
);
create index on ops.correction (stream, batch_id);
create index on ops.correction (stream, recorded_at);
comment on table ops.correction is
    'What several copies of one event said: a row for each statement that another one superseded (is_applied), or that was refused by keep_first. '
    'Holds clear personal data where the stream does.';
comment on column ops.correction.step is 'Order of the rows of one event; with stream and event_id it names the row, whichever copy was loaded first.';
comment on column ops.correction.key is 'Key fields of the event, as they stand in raw.';
comment on column ops.correction.is_applied is 'The new content took the place of the old one; else the new one came too late and the old one still counts.';
comment on column ops.correction.old_content is 'Fields of the contract and _extra before.';
comment on column ops.correction.new_content is 'Fields of the contract and _extra of the copy that says something else.';
comment on column ops.correction.old_known_from is 'Since when the house could have known the old content.';
comment on column ops.correction.old_known_to is
    'Until when the old content was the best known, exclusive; not after old_known_from: it never was. NULL: it still counts.';
comment on column ops.correction.new_known_from is 'Since when the house could have known the new content.';
comment on column ops.correction.old_file_id is 'File of the old content. NULL where it is only known as the earlier half of a statement that was made twice.';
comment on column ops.correction.batch_id is 'Batch that wrote the row in its present form.';

grant select, insert, update, maintain on ops.correction to tidemark_loader;
grant update (accepted, quarantined, duplicate) on ops.file_replay to tidemark_loader;
""")
