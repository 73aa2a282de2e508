-- One key, one answer, for each organisation. A row is held ('running') by the request that claimed it, for as long as
-- that request's replica lives, until the answer is stored ('finished'). An answer is what went to the client: status,
-- headers, bytes.
-- depends: 0003.ledger

create table idempotency_keys (
    organisation_id bigint not null references organisations (id),
    key text not null check (length(key) between 1 and 255),
    fingerprint bytea not null check (length(fingerprint) = 32),
    request_id uuid not null,
    state text not null default 'running' check (state in ('running', 'finished')),
    replica_id uuid not null,
    expires_at timestamptz not null,
    status smallint,
    headers bytea,
    body bytea,
    claimed_at timestamptz not null default now(),
    finished_at timestamptz,
    primary key (organisation_id, key),
    check ((state = 'finished') = (status is not null and headers is not null and body is not null))
);

create index idempotency_keys_expiry on idempotency_keys (expires_at);
