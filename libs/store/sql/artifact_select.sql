SELECT bytes FROM archive_artifacts WHERE hash = $1 ORDER BY part
