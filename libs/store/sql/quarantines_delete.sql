DELETE FROM quarantined_closures AS q
USING unnest($1::text[], $2::text[]) AS n (channel, closure_hash)
WHERE q.channel = n.channel AND q.closure_hash = n.closure_hash
