DELETE FROM probe_failures AS f USING rollouts AS r
WHERE r.partition = $1 AND f.rollout_id = r.rollout_id
