SELECT b.rollout_id, b.wave, b.gate, b.holds::text, b.input_seq, b.input_index, b.observed_at
FROM host_rollout_records AS h
JOIN gate_blocks AS b ON b.rollout_id = h.rollout_id AND b.wave = h.wave
WHERE h.hostname = $1
ORDER BY b.rollout_id, b.wave, b.gate
