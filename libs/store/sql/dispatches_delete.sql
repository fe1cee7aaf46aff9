DELETE FROM dispatch_queue AS d
USING unnest($1::text[], $2::text[]) AS n (rollout_id, hostname)
WHERE d.rollout_id = n.rollout_id AND d.hostname = n.hostname
