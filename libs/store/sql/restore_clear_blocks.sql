DELETE FROM gate_blocks AS b USING rollouts AS r
WHERE r.partition = $1 AND b.rollout_id = r.rollout_id
