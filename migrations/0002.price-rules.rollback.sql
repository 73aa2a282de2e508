drop table price_rules;
