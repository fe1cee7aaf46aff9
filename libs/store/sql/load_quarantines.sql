SELECT channel, closure_hash, input_seq, input_index, quarantined_at
FROM quarantined_closures WHERE partition = $1 ORDER BY channel, closure_hash
