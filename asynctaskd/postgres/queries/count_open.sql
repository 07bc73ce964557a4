-- How many receipts of a request are open, after whatever is over has been settled.
-- $1 request_id
SELECT asynctaskd.settle_request($1)
