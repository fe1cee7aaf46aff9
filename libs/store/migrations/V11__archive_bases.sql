-- Where a replay of the archive may begin besides its beginning: logs are trimmed, so that an archive
-- that begins late, or misses a part, goes on from a checkpoint.

CREATE TABLE archive_bases (
    stream         text COLLATE "C" NOT NULL,
    first_sequence bigint NOT NULL CHECK (first_sequence > 0),
    out_seq        bigint NOT NULL CHECK (out_seq > 0),
    reference      jsonb NOT NULL,
    PRIMARY KEY (stream, first_sequence)
);
COMMENT ON TABLE archive_bases IS 'The checkpoint from which the archive of an output stream can be replayed, wherever the archive does not go on from what it had.';
COMMENT ON COLUMN archive_bases.stream IS 'The output stream.';
COMMENT ON COLUMN archive_bases.first_sequence IS 'First sequence archived behind what is missing.';
COMMENT ON COLUMN archive_bases.out_seq IS 'Last output sequence that the checkpoint covers.';
COMMENT ON COLUMN archive_bases.reference IS 'The checkpoint as the log announced it; its bytes are in archive_artifacts under its hash.';
