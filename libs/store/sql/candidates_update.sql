UPDATE host_rollout_records AS r
SET recovery_candidate = n.recovery_candidate
FROM unnest($1::text[], $2::text[], $3::text[]) AS n (rollout_id, hostname, recovery_candidate)
WHERE r.rollout_id = n.rollout_id AND r.hostname = n.hostname
