SELECT EXISTS (SELECT FROM known_rollouts WHERE rollout_id = $1),
       EXISTS (SELECT FROM rollout_members WHERE rollout_id = $1 AND hostname = $2)
