-- What moved behind a version. Each query looks at no more than :most rows, the newest ones.

-- name: applied
SELECT CAST(unixepoch(applied_at) AS INTEGER) AS second, count(*)
FROM (SELECT applied_at FROM change_log WHERE version > :since ORDER BY version DESC LIMIT :most)
GROUP BY second ORDER BY second;

-- name: lags
SELECT CAST(unixepoch(published_at) AS INTEGER),
    max(0, CAST(round(1000 * (unixepoch(published_at, 'subsec') - unixepoch(committed_at, 'subsec'))) AS INTEGER))
FROM change
WHERE version > :since AND version <= :published AND committed_at IS NOT NULL AND published_at IS NOT NULL
ORDER BY version DESC LIMIT :most;

-- name: counts
SELECT object, operation, origin, count(*)
FROM (SELECT object, operation, origin FROM change_log WHERE version > :since ORDER BY version LIMIT :most)
GROUP BY object, operation, origin;

-- name: counted_to
SELECT max(version) FROM (SELECT version FROM change_log WHERE version > :since ORDER BY version LIMIT :most);

-- name: commands_by_status
SELECT status, count(*) FROM command GROUP BY status;
