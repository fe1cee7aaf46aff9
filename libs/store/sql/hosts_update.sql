UPDATE host_rollout_records AS r
SET record = n.record::jsonb, input_seq = n.input_seq, input_index = n.input_index,
    traceparent = n.traceparent
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[])
     AS n (rollout_id, hostname, record, input_seq, input_index, traceparent)
WHERE r.rollout_id = n.rollout_id AND r.hostname = n.hostname
