SELECT 1 FROM archive_artifacts WHERE hash = $1 AND part = 0
