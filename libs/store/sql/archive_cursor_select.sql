SELECT sequence, stream_created FROM archive_cursors WHERE stream = $1
