DELETE FROM dispatch_queue AS d USING rollouts AS r
WHERE r.partition = $1 AND d.rollout_id = r.rollout_id
