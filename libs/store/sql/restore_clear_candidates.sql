UPDATE host_rollout_records SET recovery_candidate = NULL
WHERE partition = $1 AND recovery_candidate IS NOT NULL
