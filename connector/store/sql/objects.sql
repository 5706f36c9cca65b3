-- name: all
SELECT name, table_name, key_prefix, fields FROM object ORDER BY name;

-- name: put
INSERT INTO object (name, table_name, key_prefix, fields) VALUES (?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET key_prefix = excluded.key_prefix, fields = excluded.fields;

-- name: table
SELECT table_name FROM object WHERE name = ?;

-- name: taken
SELECT count(*) FROM sqlite_schema WHERE name = ? COLLATE NOCASE;

-- name: search_state
SELECT search, search_row FROM object WHERE name = ?;

-- name: search_row
SELECT search_row FROM object WHERE name = ?;

-- name: late_count
SELECT count(*) FROM late_text WHERE object = ?;

-- name: late
SELECT row, indexed FROM late_text WHERE object = ?;

-- name: add_late
INSERT OR IGNORE INTO late_text (object, row, indexed) VALUES (?, ?, ?);

-- name: forget_late
DELETE FROM late_text WHERE object = ?;

-- name: set_search_state
UPDATE object SET search = ?, search_row = ? WHERE name = ?;
