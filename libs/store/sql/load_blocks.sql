SELECT b.rollout_id, b.wave, b.gate, b.holds::text, b.input_seq, b.input_index, b.observed_at
FROM rollouts AS r
JOIN gate_blocks AS b ON b.rollout_id = r.rollout_id
WHERE r.partition = $1
ORDER BY b.rollout_id, b.wave, b.gate
