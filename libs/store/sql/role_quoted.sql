SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1), quote_ident($1), quote_literal($2)
