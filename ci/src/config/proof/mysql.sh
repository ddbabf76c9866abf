set -eu
export MYSQL_PWD="${MYSQL_ROOT_PASSWORD:-}"
sql() { mysql --user=root --batch --skip-column-names; }
own="table_schema NOT IN ('information_schema', 'performance_schema', 'sys', 'mysql')"
# Each table's contents, as a sum.
sql <<EOF | sql
SELECT CONCAT('CHECKSUM TABLE \`', REPLACE(table_schema, '\`', '\`\`'), '\`.\`', REPLACE(table_name, '\`', '\`\`'), '\`;')
FROM information_schema.tables WHERE table_type = 'BASE TABLE' AND $own ORDER BY table_schema, table_name;
EOF
sql <<EOF
SET SESSION information_schema_stats_expiry = 0;
SELECT 'database', schema_name, default_character_set_name, default_collation_name FROM information_schema.schemata ORDER BY 2;
SELECT 'table', table_schema, table_name, table_type, engine, table_collation, auto_increment FROM information_schema.tables
  WHERE $own ORDER BY 2, 3;
SELECT 'columns', table_schema, table_name, COUNT(*), SUM(CRC32(CONCAT_WS('|', column_name, ordinal_position,
  IFNULL(column_default, 'NULL'), is_nullable, column_type, IFNULL(collation_name, ''), extra, generation_expression)))
  FROM information_schema.columns WHERE $own GROUP BY 2, 3 ORDER BY 2, 3;
SELECT 'index', table_schema, table_name, COUNT(*), SUM(CRC32(CONCAT_WS('|', index_name, non_unique, seq_in_index,
  IFNULL(column_name, ''), IFNULL(sub_part, ''), is_visible))) FROM information_schema.statistics WHERE $own
  GROUP BY 2, 3 ORDER BY 2, 3;
SELECT 'view', table_schema, table_name, CRC32(view_definition), definer FROM information_schema.views WHERE $own ORDER BY 2, 3;
SELECT 'routine', routine_schema, routine_name, routine_type, CRC32(routine_definition), definer FROM information_schema.routines
  WHERE routine_schema <> 'sys' ORDER BY 2, 3, 4;
SELECT 'trigger', trigger_schema, trigger_name, CRC32(action_statement), event_manipulation, action_timing
  FROM information_schema.triggers WHERE trigger_schema <> 'sys' ORDER BY 2, 3;
SELECT 'event', event_schema, event_name, CRC32(event_definition), status FROM information_schema.events ORDER BY 2, 3;
SELECT 'user', u.* FROM mysql.user u ORDER BY u.host, u.user;
SELECT 'grant', t.* FROM mysql.db t ORDER BY t.host, t.db, t.user;
SELECT 'grant', t.* FROM mysql.tables_priv t ORDER BY t.host, t.db, t.user, t.table_name;
SELECT 'grant', t.* FROM mysql.columns_priv t ORDER BY t.host, t.db, t.user, t.table_name, t.column_name;
SELECT 'grant', t.* FROM mysql.procs_priv t ORDER BY t.host, t.db, t.user, t.routine_name, t.routine_type;
SELECT 'grant', t.* FROM mysql.global_grants t ORDER BY t.user, t.host, t.priv;
SELECT 'role', t.* FROM mysql.role_edges t ORDER BY t.from_host, t.from_user, t.to_host, t.to_user;
SELECT 'role', t.* FROM mysql.default_roles t ORDER BY t.host, t.user, t.default_role_host, t.default_role_user;
SHOW GLOBAL VARIABLES WHERE variable_name NOT IN ('hostname', 'open_files_limit', 'table_open_cache', 'table_definition_cache',
  'innodb_open_files', 'innodb_page_cleaners', 'innodb_buffer_pool_instances', 'innodb_parallel_read_threads',
  'innodb_read_io_threads', 'innodb_purge_threads', 'innodb_log_writer_threads', 'temptable_max_ram');
EOF
