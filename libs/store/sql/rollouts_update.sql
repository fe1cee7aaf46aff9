UPDATE rollouts AS r
SET record = n.record::jsonb, input_seq = n.input_seq, input_index = n.input_index,
    traceparent = n.traceparent
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[])
     AS n (rollout_id, record, input_seq, input_index, traceparent)
WHERE r.rollout_id = n.rollout_id
