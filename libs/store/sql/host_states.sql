SELECT rollout_id, hostname, state
FROM host_rollout_records
WHERE rollout_id = ANY ($1::text[])
ORDER BY rollout_id, hostname
LIMIT $2
