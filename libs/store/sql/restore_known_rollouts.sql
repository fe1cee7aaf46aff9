SELECT rollout_id FROM rollouts WHERE partition = $1
