-- What it takes to replay the archive without the bus: which stream a sequence counts in, and the
-- artifacts that rollouts were opened with.

CREATE TABLE archive_generations (
    stream         text COLLATE "C" NOT NULL,
    stream_created text NOT NULL,
    first_sequence bigint NOT NULL CHECK (first_sequence > 0),
    PRIMARY KEY (stream, stream_created)
);
COMMENT ON TABLE archive_generations IS 'Every stream that was archived under a name: a log that was lost and created anew is another stream.';
COMMENT ON COLUMN archive_generations.stream IS 'The name.';
COMMENT ON COLUMN archive_generations.stream_created IS 'RFC 3339 time of creation, to the nanosecond.';
COMMENT ON COLUMN archive_generations.first_sequence IS 'First sequence archived of it.';
INSERT INTO archive_generations (stream, stream_created, first_sequence)
SELECT c.stream, c.stream_created,
       coalesce((SELECT e.sequence FROM event_log AS e WHERE e.stream = c.stream
                 ORDER BY e.sequence LIMIT 1), c.sequence)
FROM archive_cursors AS c;

CREATE TABLE archive_artifacts (
    hash  text COLLATE "C" NOT NULL,
    part  integer NOT NULL CHECK (part >= 0),
    bytes bytea NOT NULL,
    PRIMARY KEY (hash, part)
);
COMMENT ON TABLE archive_artifacts IS 'The signed artifacts of every archived release, byte for byte: without them no rollout can be expanded to its hosts.';
COMMENT ON COLUMN archive_artifacts.hash IS 'SHA-256 of the canonical form, as in rollouts.manifest_hash.';
COMMENT ON COLUMN archive_artifacts.part IS 'Number of the part, from 0; all parts were written at once.';
COMMENT ON COLUMN archive_artifacts.bytes IS 'The part, of at most 8 MiB.';
