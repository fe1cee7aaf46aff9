WITH generation AS (
    INSERT INTO archive_generations (stream, stream_created, first_sequence) VALUES ($1, $3, $4)
    ON CONFLICT (stream, stream_created) DO NOTHING
)
INSERT INTO archive_cursors (stream, sequence, stream_created) VALUES ($1, $2, $3)
ON CONFLICT (stream) DO NOTHING
