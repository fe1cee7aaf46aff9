INSERT INTO archive_artifacts (hash, part, bytes) VALUES ($1, $2, $3)
ON CONFLICT (hash, part) DO NOTHING
