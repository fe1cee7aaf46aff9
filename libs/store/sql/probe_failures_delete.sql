DELETE FROM probe_failures AS f
USING unnest($1::text[], $2::text[], $3::text[]) AS n (rollout_id, hostname, probe_name)
WHERE f.rollout_id = n.rollout_id AND f.hostname = n.hostname AND f.probe_name = n.probe_name
