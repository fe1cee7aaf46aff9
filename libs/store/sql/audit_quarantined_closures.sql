SELECT ARRAY[channel, closure_hash],
       jsonb_build_object('quarantinedAt', (extract(epoch FROM quarantined_at) * 1000000)::bigint,
                          'inputSeq', input_seq, 'inputIndex', input_index)::text
FROM quarantined_closures
WHERE partition = $1::text::integer
ORDER BY channel, closure_hash
