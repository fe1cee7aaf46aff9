SELECT max(version), bool_and(checksum = $2) FILTER (WHERE version = $1) FROM refinery_schema_history
