SELECT rollout_id, state, count(*)
FROM host_rollout_records
WHERE rollout_id = ANY ($1::text[])
GROUP BY rollout_id, state
