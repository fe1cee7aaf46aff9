SELECT stream, sequence, stream_created FROM archive_cursors ORDER BY stream
