UPDATE partition_cursors SET out_seq = $2, record = $3::text::jsonb
WHERE partition = $1 AND out_seq = $4
