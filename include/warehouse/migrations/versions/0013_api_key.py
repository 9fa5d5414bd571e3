"""Keep the keys that devices and shops post with: hashes, whose they are, what they may do, until when."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TABLE = """
create table ops.api_key (
    key_id text primary key check (key_id ~ '^[0-9a-f]{16}$'),
    secret_hash bytea not null check (octet_length(secret_hash) = 32),
    tenant_id text not null check (tenant_id ~ '^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$'),
    streams text[] check (cardinality(streams) > 0 and array_position(streams, null) is null),
    rate text,
    note text,
    created_at timestamptz not null default clock_timestamp(),
    created_by text not null,
    expires_at timestamptz check (expires_at > created_at and isfinite(expires_at)),
    replaced_by text references ops.api_key,
    revoked_at timestamptz,
    revoked_by text,
    check ((revoked_at is null) = (revoked_by is null))
);
comment on table ops.api_key is 'Keys of the gateway. Lines never go: files of posts name their key for as long as they exist.';
comment on column ops.api_key.secret_hash is 'SHA-256 of the whole key, whose secret part is 256 random bits. The key itself is nowhere.';
comment on column ops.api_key.streams is 'Streams that the key may use; NULL for all, also those that come later.';
comment on column ops.api_key.rate is 'How often it may post, as the library limits writes it: 50/second;1000/minute. NULL for no bound.';
comment on column ops.api_key.expires_at is 'From then on it is refused; NULL for never. It may be brought forward, never put off.';
comment on column ops.api_key.replaced_by is 'The key that it was rotated to.';
"""

GUARD = """
create function ops.guard_api_key() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if old.revoked_at is not null then
        raise exception 'key % was revoked: that is final', old.key_id using errcode = 'object_not_in_prerequisite_state';
    end if;
    if new.expires_at is distinct from old.expires_at and coalesce(new.expires_at, 'infinity') > coalesce(old.expires_at, 'infinity') then
        raise exception 'key % expires at %: that may only be brought forward', old.key_id, old.expires_at using errcode = 'object_not_in_prerequisite_state';
    end if;
    return new;
end
$$;
revoke execute on function ops.guard_api_key() from public;
create trigger guard_api_key before update on ops.api_key for each row execute function ops.guard_api_key();
"""

# Two sides that must not meet: who makes keys cannot read a hash, who checks them cannot make one; nobody else sees the table.
GRANTS = """
grant usage on schema ops to tidemark_keys;
grant select (key_id, tenant_id, streams, rate, note, created_at, created_by, expires_at, replaced_by, revoked_at, revoked_by) on ops.api_key to tidemark_keys;
grant insert (key_id, secret_hash, tenant_id, streams, rate, note, created_by, expires_at) on ops.api_key to tidemark_keys;
grant update (expires_at, replaced_by, revoked_at, revoked_by) on ops.api_key to tidemark_keys;
grant select (key_id, secret_hash, tenant_id, streams, rate, expires_at, revoked_at) on ops.api_key to tidemark_api;
grant maintain on ops.api_key to tidemark_loader;
"""


def upgrade() -> None:
    for statements in (TABLE, GUARD, GRANTS):
        op.execute(statements)
