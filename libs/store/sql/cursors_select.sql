SELECT partition, record::text FROM partition_cursors ORDER BY partition
