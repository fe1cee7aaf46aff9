INSERT INTO partition_cursors (partition, out_seq, record)
VALUES ($1, $2, $3::text::jsonb)
ON CONFLICT (partition) DO NOTHING
