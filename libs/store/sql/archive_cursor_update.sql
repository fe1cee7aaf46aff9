UPDATE archive_cursors SET sequence = $2, stream_created = $3 WHERE stream = $1 AND sequence = $4
