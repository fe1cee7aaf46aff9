INSERT INTO archive_cursors (stream, sequence, stream_created) VALUES ($1, $2, $3)
ON CONFLICT (stream) DO NOTHING
