WITH generation AS (
    INSERT INTO archive_generations (stream, stream_created, first_sequence) VALUES ($1, $3, $5)
    ON CONFLICT (stream, stream_created) DO NOTHING
)
UPDATE archive_cursors SET sequence = $2, stream_created = $3 WHERE stream = $1 AND sequence = $4
