drop view calls_usd;
drop table calls;
drop table replicas;
