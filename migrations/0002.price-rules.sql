-- What a call costs. Prices are integers of 1e-9 USD per million tokens, so that no published price needs a fraction;
-- a rule is never changed once a call may have used it: it is closed (valid_until) and a new one is opened, and each
-- call pins the rule that priced it. A class without a price of its own is priced as what contains it (cache reads as
-- input, reasoning as output). organisation_id null holds for every organisation; an own rule goes before it.
-- tiers: [{"above_input_tokens": n, "input": ..., ...}], the highest one passed prices the whole call.
-- depends: 0001.organisations-and-keys

create table price_rules (
    id bigint generated always as identity primary key,
    organisation_id bigint references organisations (id),
    provider text not null,
    model_pattern text not null,
    input_nano_per_mtok bigint not null check (input_nano_per_mtok >= 0),
    output_nano_per_mtok bigint not null check (output_nano_per_mtok >= 0),
    cache_read_nano_per_mtok bigint check (cache_read_nano_per_mtok >= 0),
    cache_write_nano_per_mtok bigint check (cache_write_nano_per_mtok >= 0),
    reasoning_nano_per_mtok bigint check (reasoning_nano_per_mtok >= 0),
    audio_nano_per_mtok bigint check (audio_nano_per_mtok >= 0),
    image_nano_per_mtok bigint check (image_nano_per_mtok >= 0),
    request_nano bigint not null default 0 check (request_nano >= 0),
    markup_ppm integer not null default 0 check (markup_ppm >= -1000000),
    tiers jsonb not null default '[]',
    source text not null default '',
    valid_from timestamptz not null default now(),
    valid_until timestamptz,
    created_at timestamptz not null default now(),
    check (valid_until is null or valid_until >= valid_from)
);

create unique index price_rules_one_open on price_rules (coalesce(organisation_id, 0), provider, model_pattern)
    where valid_until is null;

insert into price_rules (provider, model_pattern, input_nano_per_mtok, output_nano_per_mtok, source)
values ('echo', 'echo', 0, 0, 'built in');
