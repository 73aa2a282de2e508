-- What must always be true of the ledger. Each query returns the rows at fault, so that a healthy ledger returns none;
-- `aigate ledger verify` runs them all in one snapshot, and so do the tests.
--
-- Each begins with a line "-- name:"; the comment below it is what people read. Two numbers come from the session:
-- aigate.grace_seconds (how long after its lease a call may wait for the sweep) and aigate.retention_seconds (how long
-- an idempotency key holds, after which the same key may be billed anew); without them 60 and 86400.
-- :usage_by_organisation stands for the very query of GET /v1/usage, over everything.
--
-- Costs are recomputed here, in SQL, and not with the gateway's own code: two computations that were written apart must
-- agree. Each query reads a table once; none looks up anything for each row without an index.

-- name: nothing_pending_after_its_lease
-- A call whose replica is gone is closed by the sweep of another one, soon after the lease has ended.
select c.request_id, c.attempt, c.organisation_id, c.provider, c.model, c.replica_id, c.opened_at
from calls c
cross join (
    select make_interval(secs => coalesce(nullif(current_setting('aigate.grace_seconds', true), ''), '60')::float8) as grace
) g
where c.state = 'open' and c.opened_at < now() - g.grace
    and not exists (select 1 from replicas r where r.id = c.replica_id and r.lease_until > now() - g.grace);

-- name: a_key_is_billed_at_most_once
-- Of all calls under one idempotency key, at most one is billed while the key holds, unless an adjustment took it back.
-- Interrupted and superseded calls are not billed, and keys of our own making (auto:) bind only what is still running.
with entries as (
    select c.organisation_id, c.idempotency_key, c.request_id, c.attempt, c.opened_at, c.outcome, c.billed_cost_nano,
        c.input_tokens + c.output_tokens as tokens
    from calls c
    where c.idempotency_key is not null and c.state = 'settled'
    union all
    select c.organisation_id, c.idempotency_key, c.request_id, c.attempt, c.opened_at, a.outcome, a.billed_cost_nano,
        a.input_tokens + a.output_tokens
    from adjustments a join calls c using (request_id, attempt)
    where c.idempotency_key is not null and a.reason = 'settled after the sweep'
), billed as (
    select distinct organisation_id, idempotency_key, request_id, attempt, opened_at
    from entries
    where idempotency_key not like 'auto:%'
        and (billed_cost_nano > 0 or (tokens > 0 and coalesce(outcome, '') not in ('interrupted', 'superseded')))
), several as (
    select organisation_id, idempotency_key from billed group by organisation_id, idempotency_key having count(*) > 1
), suspects as materialized (
    select b.* from billed b join several s using (organisation_id, idempotency_key)
), standing as (
    select b.*
    from suspects b
    cross join lateral (
        select coalesce(sum(a.billed_cost_nano), 0) as added, coalesce(min(a.billed_cost_nano), 0) as least_added
        from adjustments a where a.request_id = b.request_id and a.attempt = b.attempt
    ) a
    cross join lateral (
        select c.billed_cost_nano from calls c where c.request_id = b.request_id and c.attempt = b.attempt
    ) c
    where a.least_added >= 0 or c.billed_cost_nano + a.added > 0
), ordered as (
    select b.*, lag(b.request_id) over earlier as billed_before, b.opened_at - lag(b.opened_at) over earlier as after
    from standing b
    window earlier as (partition by b.organisation_id, b.idempotency_key order by b.opened_at, b.request_id, b.attempt)
)
select o.organisation_id, o.idempotency_key, o.request_id, o.attempt, o.opened_at, o.billed_before
from ordered o
where o.after < make_interval(
    secs => coalesce(nullif(current_setting('aigate.retention_seconds', true), ''), '86400')::float8
        - coalesce(nullif(current_setting('aigate.grace_seconds', true), ''), '60')::float8);

-- name: billed_is_rule_times_tokens
-- What was billed is the pinned rule times the tokens: tier, request price and mark-up included, rounded once, half-even.
-- Interrupted and superseded calls may be billed nothing instead: another call under their key is billed. So is a call
-- of which nothing is known to have been used.
with rules as (
    select r.id, t.ordinality, coalesce((t.tier ->> 'above_input_tokens')::bigint, -9223372036854775808) as above,
        r.request_nano, r.markup_ppm,
        case when t.tier ? 'input' then (t.tier ->> 'input')::bigint else r.input_nano_per_mtok end as input,
        case when t.tier ? 'output' then (t.tier ->> 'output')::bigint else r.output_nano_per_mtok end as output,
        case when t.tier ? 'cache_read' then (t.tier ->> 'cache_read')::bigint else r.cache_read_nano_per_mtok end
            as cache_read,
        case when t.tier ? 'cache_write' then (t.tier ->> 'cache_write')::bigint else r.cache_write_nano_per_mtok end
            as cache_write,
        case when t.tier ? 'reasoning' then (t.tier ->> 'reasoning')::bigint else r.reasoning_nano_per_mtok end
            as reasoning,
        case when t.tier ? 'audio' then (t.tier ->> 'audio')::bigint else r.audio_nano_per_mtok end as audio,
        case when t.tier ? 'image' then (t.tier ->> 'image')::bigint else r.image_nano_per_mtok end as image
    from price_rules r
    cross join lateral (
        select '{}'::jsonb as tier, 0::bigint as ordinality
        union all
        select e.tier, e.ordinality from jsonb_array_elements(r.tiers) with ordinality as e (tier, ordinality)
    ) t
), prices as materialized (
    -- one row for each rule and range of input lengths; a class without a price costs what contains it
    select id, above, lead(above) over (partition by id order by above, ordinality) as up_to, request_nano, markup_ppm,
        input::numeric as input, output::numeric as output,
        (coalesce(cache_read, input) - input)::numeric as cache_read,
        (coalesce(cache_write, input) - input)::numeric as cache_write,
        (coalesce(reasoning, output) - output)::numeric as reasoning,
        coalesce(audio - input, 0)::numeric as audio_in, coalesce(audio - output, 0)::numeric as audio_out,
        coalesce(image - input, 0)::numeric as image_in, coalesce(image - output, 0)::numeric as image_out
    from rules
), entries as (
    select c.request_id, c.attempt, 'call' as entry, c.organisation_id, c.outcome, c.price_rule_id, c.input_tokens,
        c.cache_read_tokens, c.cache_write_tokens, c.output_tokens, c.reasoning_tokens, c.audio_tokens, c.image_tokens,
        c.billed_cost_nano
    from calls c
    where c.state = 'settled' and c.price_rule_id is not null
        and not (coalesce(c.outcome, '') in ('interrupted', 'superseded') and c.billed_cost_nano = 0)
        and not (c.usage_source = 'none' and c.billed_cost_nano = 0)
    union all
    select a.request_id, a.attempt, 'adjustment', a.organisation_id, a.outcome, c.price_rule_id, a.input_tokens,
        a.cache_read_tokens, a.cache_write_tokens, a.output_tokens, a.reasoning_tokens, a.audio_tokens, a.image_tokens,
        a.billed_cost_nano
    from adjustments a join calls c using (request_id, attempt)
    where a.reason = 'settled after the sweep' and c.price_rule_id is not null and a.billed_cost_nano <> 0
), charges as (
    select e.*,
        (taken_in * p.input + taken_out * p.output + read * p.cache_read + write * p.cache_write
            + reasoned * p.reasoning + heard * p.audio_in + said * p.audio_out + seen * p.image_in + drawn * p.image_out
            + p.request_nano * 1000000::numeric) * (1000000 + p.markup_ppm) as charge
    from entries e
    join prices p on p.id = e.price_rule_id and e.input_tokens > p.above
        and (p.up_to is null or e.input_tokens <= p.up_to)
    cross join lateral (
        select greatest(e.input_tokens, 0) as taken_in, greatest(e.output_tokens, 0) as taken_out
    ) n
    cross join lateral (
        select least(greatest(e.cache_read_tokens, 0), taken_in) as read,
            least(greatest(e.reasoning_tokens, 0), taken_out) as reasoned
    ) b
    cross join lateral (select least(greatest(e.cache_write_tokens, 0), taken_in - read) as write) w
    cross join lateral (select least(greatest(e.audio_tokens, 0), taken_in) as audio_inside) i
    cross join lateral (
        select least(audio_inside, taken_in - read - write) as heard,
            least(greatest(e.audio_tokens - audio_inside, 0), taken_out - reasoned) as said
    ) h
    cross join lateral (select least(greatest(e.image_tokens, 0), taken_in - audio_inside) as image_inside) j
    cross join lateral (
        select least(image_inside, taken_in - read - write - heard) as seen,
            least(greatest(e.image_tokens - image_inside, 0), taken_out - reasoned - said) as drawn
    ) s
), expected as (
    select c.*, c.whole + case
            when 2 * c.rest > 1000000000000 or (2 * c.rest = 1000000000000 and c.whole % 2 = 1) then 1 else 0
        end as expected_cost_nano
    from (
        select x.*, div(x.charge, 1000000000000) as whole, x.charge % 1000000000000 as rest from charges x
    ) c
)
select request_id, attempt, entry, organisation_id, outcome, price_rule_id, input_tokens, output_tokens,
    billed_cost_nano, trim_scale(expected_cost_nano) as expected_cost_nano
from expected
where billed_cost_nano <> expected_cost_nano;

-- name: unpriced_calls_are_free
-- A call without a price rule is billed nothing, and so are its adjustments for usage.
select c.request_id, c.attempt, c.organisation_id, c.provider, c.model, c.billed_cost_nano
from calls c
where c.price_rule_id is null and c.billed_cost_nano <> 0
union all
select a.request_id, a.attempt, a.organisation_id, c.provider, c.model, a.billed_cost_nano
from adjustments a join calls c using (request_id, attempt)
where c.price_rule_id is null and a.reason = 'settled after the sweep' and a.billed_cost_nano <> 0;

-- name: void_calls_are_empty
-- A void call is one on which nothing was spent: no tokens, no cost, neither ours nor the provider's.
select c.request_id, c.attempt, c.organisation_id, c.billed_cost_nano, c.provider_cost_nano
from calls c
where c.state = 'void'
    and (c.billed_cost_nano <> 0 or coalesce(c.provider_cost_nano, 0) <> 0 or c.usage_source <> 'none'
        or c.input_tokens <> 0 or c.cache_read_tokens <> 0 or c.cache_write_tokens <> 0 or c.output_tokens <> 0
        or c.reasoning_tokens <> 0 or c.audio_tokens <> 0 or c.image_tokens <> 0);

-- name: open_calls_cost_nothing
-- What a call costs is known when it is closed, not before.
select c.request_id, c.attempt, c.organisation_id, c.billed_cost_nano
from calls c
where c.state = 'open' and (c.billed_cost_nano <> 0 or c.settled_at is not null);

-- name: closed_calls_say_how_they_ended
-- A settled or void call says when it ended and how.
select c.request_id, c.attempt, c.organisation_id, c.state, c.outcome, c.settled_at
from calls c
where c.state <> 'open' and (c.settled_at is null or c.outcome is null);

-- name: finished_answers_belong_to_settled_calls
-- Every stored answer of an idempotency key is that of a settled call, of the same organisation and under the same key.
select k.organisation_id, k.key, k.request_id, k.status, k.finished_at
from idempotency_keys k
where k.state = 'finished' and not exists (
    select 1 from calls c
    where c.request_id = k.request_id and c.state = 'settled' and c.organisation_id = k.organisation_id
        and c.idempotency_key = k.key);

-- name: billed_calls_hold_no_running_key
-- A billed call has finished its key in the same transaction: otherwise the retry would run again and be billed again.
select k.organisation_id, k.key, k.request_id, c.attempt, c.billed_cost_nano
from idempotency_keys k join calls c on c.request_id = k.request_id
where k.state = 'running' and c.state = 'settled' and c.billed_cost_nano > 0;

-- name: adjustments_belong_to_closed_calls
-- An adjustment corrects a call that is closed, of the same organisation.
select a.id, a.request_id, a.attempt, a.organisation_id, a.reason, c.state
from adjustments a left join calls c using (request_id, attempt)
where c.state is null or c.state = 'open' or c.organisation_id <> a.organisation_id;

-- name: calls_keep_to_their_organisation
-- A call is billed to the organisation of its API key, by a rule of that organisation or one that holds for all.
select c.request_id, c.attempt, c.organisation_id, c.api_key_id, c.price_rule_id
from calls c
left join api_keys k on k.id = c.api_key_id
left join price_rules r on r.id = c.price_rule_id
where k.organisation_id is distinct from c.organisation_id or r.organisation_id <> c.organisation_id;

-- name: sums_of_rows_are_sums_of_organisations
-- What GET /v1/usage says of an organisation is the sum of its rows and adjustments, no more and no less.
with rows_ as (
    select organisation_id, count(*) as calls, sum(input_tokens) as input_tokens, sum(output_tokens) as output_tokens,
        sum(billed_cost_nano) as billed_cost_nano
    from calls group by organisation_id
    union all
    select organisation_id, 0, sum(input_tokens), sum(output_tokens), sum(billed_cost_nano)
    from adjustments group by organisation_id
), sums as (
    select organisation_id, sum(calls) as calls, sum(input_tokens) as input_tokens, sum(output_tokens) as output_tokens,
        sum(billed_cost_nano) as billed_cost_nano
    from rows_ group by organisation_id
)
select organisation_id, s.calls, u.calls as usage_calls, s.billed_cost_nano,
    u.billed_cost_nano as usage_billed_cost_nano
from sums s full join (:usage_by_organisation) u using (organisation_id)
where (s.calls, s.input_tokens, s.output_tokens, s.billed_cost_nano)
    is distinct from (u.calls, u.input_tokens, u.output_tokens, u.billed_cost_nano);
