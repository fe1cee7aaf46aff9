SELECT ARRAY[partition::text],
       jsonb_build_object('outSeq', out_seq, 'input', record -> 'input',
                          'epoch', record -> 'epoch', 'leaderEpoch', record -> 'leaderEpoch',
                          'clock', record -> 'clock')::text
FROM partition_cursors
WHERE partition = $1::text::integer
