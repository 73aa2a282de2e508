-- The ledger: one row for each call to a provider, durable before the call is made ('open') and closed before the
-- client has the end of its answer ('settled', or 'void' when nothing was spent). Money in 1e-9 USD. A row whose
-- replica is gone (its lease ran out) is one that nobody will settle. calls_usd is the same for people.
-- depends: 0002.price-rules

create table replicas (
    id uuid primary key,
    name text not null,
    started_at timestamptz not null default now(),
    lease_until timestamptz not null
);

create table calls (
    request_id uuid not null,
    attempt smallint not null default 1,
    organisation_id bigint not null references organisations (id),
    api_key_id bigint not null references api_keys (id),
    idempotency_key text,
    provider text not null,
    model text not null,
    stream boolean not null,
    state text not null default 'open' check (state in ('open', 'settled', 'void')),
    outcome text,
    usage_source text not null default 'none' check (usage_source in ('provider', 'estimated', 'none')),
    input_tokens bigint not null default 0,
    cache_read_tokens bigint not null default 0,
    cache_write_tokens bigint not null default 0,
    output_tokens bigint not null default 0,
    reasoning_tokens bigint not null default 0,
    audio_tokens bigint not null default 0,
    image_tokens bigint not null default 0,
    price_rule_id bigint references price_rules (id),
    provider_cost_nano bigint,
    billed_cost_nano bigint not null default 0,
    replica_id uuid not null,
    opened_at timestamptz not null default now(),
    settled_at timestamptz,
    primary key (request_id, attempt),
    check ((state = 'open') = (settled_at is null)),
    check (state = 'settled' or billed_cost_nano = 0)
);

create index calls_open on calls (replica_id) where state = 'open';
create index calls_of_organisation on calls (organisation_id, opened_at);

create view calls_usd as
select c.*,
    c.billed_cost_nano::numeric / 1000000000 as billed_cost_usd,
    c.provider_cost_nano::numeric / 1000000000 as provider_cost_usd
from calls c;
