INSERT INTO quarantined_closures (channel, closure_hash, partition, quarantined_at, input_seq,
                                  input_index)
SELECT n.channel, n.closure_hash, $1, n.quarantined_at, n.input_seq, n.input_index
FROM unnest($2::text[], $3::text[], $4::timestamptz[], $5::bigint[], $6::bigint[])
     AS n (channel, closure_hash, quarantined_at, input_seq, input_index)
ON CONFLICT (channel, closure_hash) DO NOTHING
