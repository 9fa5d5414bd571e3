"""Keep model versions and who was champion from when to when beside the predictions, and the reasons of a prediction with it."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

VERSION = """
create table ops.model_version (
    use_case text not null,
    model_version integer not null check (model_version > 0),
    snapshot text not null,
    card jsonb not null,
    model_file text not null,
    report jsonb,
    has_passed boolean not null,
    gate_reason text not null check (gate_reason <> ''),
    dataset_id bigint references ops.dataset,
    trained_because text check (btrim(trained_because) <> ''),
    registered_at timestamptz not null default clock_timestamp(),
    primary key (use_case, model_version)
);
create index on ops.model_version (use_case, snapshot);
comment on table ops.model_version is 'Model versions that count: what scoring must know of each, its training report, and what the gate said. Lines never change.';
comment on column ops.model_version.snapshot is 'Identity of data, configuration and libraries: the same again is the same version.';
comment on column ops.model_version.card is 'Features, days learned from, and SHA-256 of the file.';
comment on column ops.model_version.model_file is 'The fitted model, below the home; absolute where it lies elsewhere.';
comment on column ops.model_version.report is 'The training report. NULL for versions older than this table whose report is gone.';
comment on column ops.model_version.trained_because is 'Why it was trained; NULL for versions of an older release, which kept no reason.';
"""

# One open line a use case; closing one and opening the next is one transaction (ml/lifecycle/champions.py). A line changes once, when its reign ends.
HISTORY = """
create table ops.model_history (
    history_id bigint generated always as identity primary key,
    use_case text not null,
    model_version integer not null,
    champion_from timestamptz not null,
    champion_until timestamptz,
    decided_by text not null check (btrim(decided_by) <> ''),
    reason text not null check (btrim(reason) <> ''),
    is_rollback boolean not null default false,
    foreign key (use_case, model_version) references ops.model_version,
    unique (use_case, champion_from),
    check (champion_from < champion_until)
);
create unique index model_history_one_champion on ops.model_history (use_case) where champion_until is null;
comment on table ops.model_history is
    'Which version was champion in [champion_from, champion_until), decided by whom and why. The line without an end is the champion: scoring reads it, and marts '
    'that act on predictions read its predictions only. The alias in MLflow follows it.';
comment on column ops.model_history.decided_by is 'gate, or the person that ran the command.';
comment on column ops.model_history.is_rollback is 'Whether the line took an earlier champion back: what was champion in between does not count as its predecessor.';

create function ops.end_reign_once() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if tg_op = 'DELETE' or old.champion_until is not null or new.champion_until is null
        or to_jsonb(new) - 'champion_until' <> to_jsonb(old) - 'champion_until' then
        raise exception 'ops.model_history is only appended to: a line changes once, when its reign ends' using errcode = 'integrity_constraint_violation';
    end if;
    return new;
end
$$;
create trigger end_reign_once before update or delete on ops.model_history for each row execute function ops.end_reign_once();
revoke execute on function ops.end_reign_once() from public;
"""

GRANTS = """
grant select, insert on ops.model_version, ops.model_history to tidemark_ml;
grant update (champion_until) on ops.model_history to tidemark_ml;
grant select on ops.model_version, ops.model_history to tidemark_loader, tidemark_transformer, tidemark_analyst, tidemark_api;
grant maintain on ops.model_version, ops.model_history to tidemark_loader;
"""

REASONS = """
alter table predictions.device_failure add column reasons jsonb;
comment on column predictions.device_failure.reasons is
    'Features that moved the prediction most, greatest first: [{feature, value, contribution}], in log-odds of the probability. NULL where an older release scored.';
"""


def upgrade() -> None:
    for statements in (VERSION, HISTORY, GRANTS, REASONS):
        op.execute(statements)
