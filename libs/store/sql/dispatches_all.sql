SELECT rollout_id, hostname, record::text, input_seq, input_index, traceparent
FROM dispatch_queue
ORDER BY rollout_id, hostname
