INSERT INTO dispatch_queue (rollout_id, hostname, record, input_seq, input_index, traceparent)
SELECT n.rollout_id, n.hostname, n.record::jsonb, n.input_seq, n.input_index, n.traceparent
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[])
     AS n (rollout_id, hostname, record, input_seq, input_index, traceparent)
WHERE EXISTS (SELECT FROM host_rollout_records AS r
              WHERE r.rollout_id = n.rollout_id AND r.hostname = n.hostname)
ON CONFLICT (rollout_id, hostname) DO UPDATE
SET record = excluded.record, input_seq = excluded.input_seq, input_index = excluded.input_index,
    traceparent = excluded.traceparent
