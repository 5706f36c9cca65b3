-- name: get
SELECT value FROM cursor WHERE name = ?;

-- name: set
INSERT INTO cursor (name, value, updated_at) VALUES (?, ?, ?)
ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at;

-- name: forget
DELETE FROM cursor WHERE name = ?;

-- name: all
SELECT name, value, updated_at FROM cursor ORDER BY name;

-- name: count_call
INSERT INTO api_usage (hour, purpose, calls) VALUES (?, ?, ?)
ON CONFLICT (hour, purpose) DO UPDATE SET calls = calls + excluded.calls;

-- name: calls_since
SELECT purpose, sum(calls) FROM api_usage WHERE hour >= ? GROUP BY purpose;

-- name: calls_by_hour
SELECT hour, purpose, calls FROM api_usage WHERE hour >= ?;

-- name: redate_calls
INSERT INTO api_usage (hour, purpose, calls)
SELECT :hour, purpose, sum(calls) FROM api_usage WHERE hour > :after GROUP BY purpose
ON CONFLICT (hour, purpose) DO UPDATE SET calls = calls + excluded.calls;

-- name: forget_calls
DELETE FROM api_usage WHERE hour > ?;

-- name: identify
INSERT OR IGNORE INTO cursor (name, value, updated_at)
VALUES ('replica', lower(hex(randomblob(16))), strftime('%Y-%m-%dT%H:%M:%fZ', 'now'));
