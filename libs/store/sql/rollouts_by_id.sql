SELECT rollout_id, record::text, manifest_hash, host_count, wave_count, on_health_failure, input_seq,
       input_index, traceparent
FROM rollouts
WHERE rollout_id = ANY ($1::text[])
ORDER BY opened_at DESC, rollout_id
