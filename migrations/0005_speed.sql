-- schema 1.3
--
-- What is computed for each finished task becomes part of the statement that asks for it.

-- PostgreSQL puts the body of an SQL function into the statement only where the function isn't declared to be more
-- constant than its body is; adding to a timestamptz is STABLE. Called, these two cost more than the row they are for.
CREATE OR REPLACE FUNCTION asynctaskd.later(moment timestamptz, duration interval) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN moment + make_interval(secs => extract(epoch FROM duration)::float8);

CREATE OR REPLACE FUNCTION asynctaskd.forget_day(finished timestamptz, keep interval) RETURNS date
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (asynctaskd.later(finished, keep) AT TIME ZONE 'UTC')::date + 1;
