SELECT f.rollout_id, f.hostname, f.probe_name, f.control_id, f.framework, f.input_seq, f.input_index,
       f.observed_at
FROM rollouts AS r
JOIN probe_failures AS f ON f.rollout_id = r.rollout_id
WHERE r.partition = $1
ORDER BY f.rollout_id, f.hostname, f.probe_name, f.ordinal
