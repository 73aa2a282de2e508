-- The ledger: one row for each call to a provider, durable before the call is made ('open') and closed before the
-- client has the end of its answer ('settled', or 'void' when nothing was spent). Money in 1e-9 USD. A row whose
-- replica is gone (its lease ran out) is one that nobody will settle: it is closed as 'interrupted'. What becomes known
-- of a closed call later is an adjustment, a row of its own: a closed row is never rewritten. calls_usd is for people.
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
    estimated_cost_nano bigint not null default 0,
    on_disconnect text not null default 'cancel' check (on_disconnect in ('cancel', 'drain')),
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

create table adjustments (
    id bigint generated always as identity primary key,
    request_id uuid not null,
    attempt smallint not null,
    organisation_id bigint not null references organisations (id),
    reason text not null,
    outcome text,
    usage_source text not null check (usage_source in ('provider', 'estimated', 'none')),
    input_tokens bigint not null default 0,
    cache_read_tokens bigint not null default 0,
    cache_write_tokens bigint not null default 0,
    output_tokens bigint not null default 0,
    reasoning_tokens bigint not null default 0,
    audio_tokens bigint not null default 0,
    image_tokens bigint not null default 0,
    provider_cost_nano bigint,
    billed_cost_nano bigint not null,
    created_at timestamptz not null default now(),
    foreign key (request_id, attempt) references calls (request_id, attempt),
    unique (request_id, attempt, reason)
);

create view calls_usd as
select c.*,
    (c.billed_cost_nano + coalesce(a.billed_cost_nano, 0))::numeric / 1000000000 as billed_cost_usd,
    (c.provider_cost_nano + coalesce(a.provider_cost_nano, 0))::numeric / 1000000000 as provider_cost_usd
from calls c
left join (
    select request_id, attempt, sum(billed_cost_nano)::bigint as billed_cost_nano,
        sum(provider_cost_nano)::bigint as provider_cost_nano
    from adjustments group by request_id, attempt
) a using (request_id, attempt);
