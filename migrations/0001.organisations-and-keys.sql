-- Who may call: organisations and their API keys. A key is stored as the hash of its secret, looked up by its
-- public id; revoking sets a time, so that the ledger's rows keep pointing at it. join_duplicates_seconds switches on the
-- guard for clients that send no idempotency key, for a key or for all of an organisation.
-- depends:

create table organisations (
    id bigint generated always as identity primary key,
    name text not null unique check (length(name) between 1 and 200),
    join_duplicates_seconds integer check (join_duplicates_seconds >= 0),
    created_at timestamptz not null default now()
);

create table api_keys (
    id bigint generated always as identity primary key,
    organisation_id bigint not null references organisations (id),
    public_id text not null unique,
    secret_hash bytea not null check (length(secret_hash) = 32),
    name text not null default '',
    models text[],
    requests_per_minute integer check (requests_per_minute >= 0),
    join_duplicates_seconds integer check (join_duplicates_seconds >= 0),
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    revoked_at timestamptz
);

create index api_keys_of_organisation on api_keys (organisation_id);
