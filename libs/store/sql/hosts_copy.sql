COPY host_rollout_records (rollout_id, hostname, partition, wave, staged, record, input_seq,
                           input_index, traceparent, channel, target_closure, soak_minutes,
                           dispatched_at)
FROM STDIN (FORMAT binary)
