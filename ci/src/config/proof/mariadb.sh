set -eu
export MYSQL_PWD="${MARIADB_ROOT_PASSWORD:-${MYSQL_ROOT_PASSWORD:-}}"
client=$(command -v mariadb || command -v mysql)
sql() { "$client" --user=root --batch --skip-column-names; }
own="table_schema NOT IN ('information_schema', 'performance_schema', 'sys', 'mysql')"
# Each table's contents, as a sum.
sql <<EOF | sql
SELECT CONCAT('CHECKSUM TABLE \`', REPLACE(table_schema, '\`', '\`\`'), '\`.\`', REPLACE(table_name, '\`', '\`\`'), '\`;')
FROM information_schema.tables WHERE table_type = 'BASE TABLE' AND $own ORDER BY table_schema, table_name;
EOF
sql <<EOF
SELECT 'database', schema_name, default_character_set_name, default_collation_name FROM information_schema.schemata ORDER BY 2;
SELECT 'table', table_schema, table_name, table_type, engine, table_collation, auto_increment FROM information_schema.tables
  WHERE $own ORDER BY 2, 3;
SELECT 'columns', table_schema, table_name, COUNT(*), SUM(CRC32(CONCAT_WS('|', column_name, ordinal_position,
  IFNULL(column_default, 'NULL'), is_nullable, column_type, IFNULL(collation_name, ''), extra,
  IFNULL(generation_expression, '')))) FROM information_schema.columns WHERE $own GROUP BY 2, 3 ORDER BY 2, 3;
SELECT 'index', table_schema, table_name, COUNT(*), SUM(CRC32(CONCAT_WS('|', index_name, non_unique, seq_in_index,
  column_name, IFNULL(sub_part, '')))) FROM information_schema.statistics WHERE $own GROUP BY 2, 3 ORDER BY 2, 3;
SELECT 'view', table_schema, table_name, CRC32(view_definition), definer FROM information_schema.views WHERE $own ORDER BY 2, 3;
SELECT 'routine', routine_schema, routine_name, routine_type, CRC32(routine_definition), definer FROM information_schema.routines
  WHERE routine_schema NOT IN ('sys', 'mysql') ORDER BY 2, 3, 4;
SELECT 'trigger', trigger_schema, trigger_name, CRC32(action_statement), event_manipulation, action_timing
  FROM information_schema.triggers WHERE trigger_schema <> 'sys' ORDER BY 2, 3;
SELECT 'event', event_schema, event_name, CRC32(event_definition), status FROM information_schema.events ORDER BY 2, 3;
SELECT 'user', t.* FROM mysql.global_priv t ORDER BY t.host, t.user;
SELECT 'grant', t.* FROM mysql.db t ORDER BY t.host, t.db, t.user;
SELECT 'grant', t.* FROM mysql.tables_priv t ORDER BY t.host, t.db, t.user, t.table_name;
SELECT 'grant', t.* FROM mysql.columns_priv t ORDER BY t.host, t.db, t.user, t.table_name, t.column_name;
SELECT 'grant', t.* FROM mysql.procs_priv t ORDER BY t.host, t.db, t.user, t.routine_name, t.routine_type;
SELECT 'role', t.* FROM mysql.roles_mapping t ORDER BY t.host, t.user, t.role;
SHOW GLOBAL VARIABLES WHERE variable_name NOT IN ('hostname', 'server_uid', 'open_files_limit', 'table_open_cache',
  'table_definition_cache', 'innodb_open_files', 'thread_pool_size', 'thread_pool_max_threads');
EOF
