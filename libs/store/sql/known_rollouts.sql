SELECT rollout_id
FROM known_rollouts
WHERE partition = $1 AND state <> 'Pruned'
ORDER BY rollout_id
