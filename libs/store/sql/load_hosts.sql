SELECT h.rollout_id, h.hostname, h.record::text, d.record::text, h.recovery_candidate,
       h.input_seq, h.input_index, h.wave, h.staged, d.input_seq, d.input_index
FROM host_rollout_records AS h
LEFT JOIN dispatch_queue AS d ON d.rollout_id = h.rollout_id AND d.hostname = h.hostname
WHERE h.rollout_id = $1
ORDER BY h.hostname
