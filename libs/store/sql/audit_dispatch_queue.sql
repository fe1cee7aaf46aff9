SELECT ARRAY[rollout_id, hostname],
       jsonb_build_object('record', record,
                          'inputSeq', input_seq, 'inputIndex', input_index)::text
FROM dispatch_queue
WHERE rollout_id = $1
ORDER BY hostname
