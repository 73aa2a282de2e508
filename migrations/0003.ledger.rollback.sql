drop view calls_usd;
drop table adjustments;
drop table calls;
drop table replicas;
