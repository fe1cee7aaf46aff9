COPY host_rollout_records (rollout_id, hostname, partition, wave, staged, record, input_seq,
                           input_index, traceparent)
FROM STDIN (FORMAT binary)
