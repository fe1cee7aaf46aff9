SELECT ARRAY[rollout_id, hostname],
       jsonb_build_object('record', record, 'wave', wave, 'staged', staged,
                          'recoveryCandidate', recovery_candidate,
                          'inputSeq', input_seq, 'inputIndex', input_index)::text
FROM host_rollout_records
WHERE rollout_id = $1
ORDER BY hostname
