INSERT INTO rollouts (rollout_id, partition, record, manifest_hash, host_count, wave_count,
                      on_health_failure, input_seq, input_index, traceparent, pinned)
VALUES ($1, $2, $3::text::jsonb, $4, $5, $6, $7, $8, $9, $10, $11::text::jsonb)
