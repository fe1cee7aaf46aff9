SELECT rollout_id
FROM known_rollouts
WHERE rollout_id = ANY ($1::text[]) AND state IN ('Superseded', 'Pruned')
