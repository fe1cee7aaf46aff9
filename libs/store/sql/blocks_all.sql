SELECT b.rollout_id, b.wave, b.gate, b.holds::text, b.input_seq, b.input_index, b.observed_at
FROM gate_blocks AS b
JOIN rollouts AS r ON r.rollout_id = b.rollout_id
WHERE r.state NOT IN ('Superseded', 'Pruned')
ORDER BY b.observed_at DESC, b.rollout_id, b.wave, b.gate
